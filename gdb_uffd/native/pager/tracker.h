/* tracker.h - the ways to learn which pages of the vessel were written.
 *
 * One is told each first write while the writer waits, and so knows who it was.  The others collect
 * after the fact: they compare with what stood when they last did, and what the debugger itself
 * writes in between must be ignored. */
#ifndef GDB_UFFD_TRACKER_H
#define GDB_UFFD_TRACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/fail.h"
#include "kernel/python.h"
#include "kernel/uffd.h"

/* The kind and the offer are for whoever makes the vessel to choose; the rest is the tracker's. */
PYTHON struct tracker {
	const struct tracker_kind *kind;
	struct uffd_offer offer;
	bool ran;   /* the program has run since it was collected last */
	bool stale; /* soft-dirty: bits stand that are not the program's */
	int pagemap_fd, clear_fd;
	struct { /* soft-dirty: the pages that were fed, sorted; some may be gone again */
		uint64_t *at;
		size_t count, room;
	} fed;
};

struct pager;

/* What a tracker is.  A function that is NULL has nothing to do there; but `collect`, which belongs to those that
 * are not told, and `copy`. */
PYTHON struct tracker_kind {
	const char *name; /* as users choose it */
	uint64_t needed, useful; /* UFFD_FEATURE_*, beside those that all need and use */
	bool protects;    /* pages are write-protected */
	bool tells_first; /* each page's first write is told, and who wrote */
	/* The vessel lives: opens what is read of it. */
	int (*start)(struct pager *pager, struct error *error);
	/* Copies a page in, with what is needed to see it written. */
	int (*copy)(struct pager *pager, uint64_t page, const void *from, bool protect);
	/* Around a copy for a thread that waits for the page or may go on. */
	int (*before_feed)(struct pager *pager);
	int (*after_feed)(struct pager *pager, uint64_t page);
	/* Notes what was written since it was called last. */
	int (*collect)(struct pager *pager);
	int (*about_to_run)(struct tracker *tracker);
	/* Mappings are about to be changed by a system call; pages are about to be dropped or moved by one: whether
	 * it is to be collected before. */
	bool collects_before_mappings, collects_before_pages_go;
	/* The page is here now, without having been copied. */
	int (*moved)(struct pager *pager, uint64_t page);
	/* What was just written to the page was not written by the program. */
	int (*ignore)(struct pager *pager, uint64_t page);
};

/* By its name; NULL: there is none. */
PYTHON const struct tracker_kind *tracker_named(const char *name);

static inline bool tracker_protects(const struct tracker *tracker)
{
	return tracker->kind->protects;
}

static inline bool tracker_tells_first(const struct tracker *tracker)
{
	return tracker->kind->tells_first;
}

void tracker_init(struct tracker *tracker);
void tracker_deinit(struct tracker *tracker);

/* UFFD_FEATURE_* to ask for, of those that are offered; *lacking out: what it cannot do without. */
PYTHON uint64_t tracker_features(const struct tracker_kind *kind, uint64_t offered, uint64_t *lacking);

/* As the kind's own. */
int tracker_start(struct pager *pager, struct error *error);
void tracker_stop(struct pager *pager);
int tracker_copy(struct pager *pager, uint64_t page, const void *from, bool protect);
int tracker_before_feed(struct pager *pager);
int tracker_after_feed(struct pager *pager, uint64_t page);

/* The vessel is stopped. */
/* Before it runs on. */
int tracker_about_to_run(struct pager *pager);
/* Notes what was written since then, if anything ran. */
PYTHON int tracker_sync(struct pager *pager);
/* A system call is about to change mappings; `pages_go`: some pages will be dropped or moved.  What
 * would be forgotten with it is noted. */
int tracker_before_mappings(struct pager *pager, bool pages_go);
int tracker_moved(struct pager *pager, uint64_t page);
int tracker_ignore(struct pager *pager, uint64_t page);

#endif
