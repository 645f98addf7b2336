/* engine.h - the four ways to learn which pages of the vessel were written.
 *
 * wp-sync is told each first write while the writer waits, and so knows who it was.  The others
 * look after the fact: engine_look compares with what stood at the last look, and what the
 * debugger itself writes in between must be disregarded (engine_disregard). */
#ifndef GDB_UFFD_ENGINE_H
#define GDB_UFFD_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "uffd.h"

enum engine_kind {
	ENGINE_WP_SYNC = 0,    /* write-protection, answered by the pager */
	ENGINE_WP_ASYNC = 1,   /* write-protection, lifted by the kernel; PAGEMAP_SCAN tells */
	ENGINE_SOFT_DIRTY = 2, /* the soft-dirty bit of each pte */
	ENGINE_COMPARE = 3,    /* no help: the bytes themselves */
};
#define ENGINE_KINDS 4

/* The kind and the offer are for whoever makes the vessel to choose; the rest is the engine's. */
struct engine {
	int kind;
	struct uffd_offer offer;
	bool ran;   /* the program has run since the last look */
	bool stale; /* soft-dirty: bits stand that are not the program's */
	int pagemap_fd, clear_fd;
	uint64_t *fed; /* soft-dirty: the pages that were fed, sorted; some may be gone again */
	size_t fed_count, fed_room;
	uint64_t looks, look_ns;
};

struct pager;
struct region;

void engine_init(struct engine *engine);
void engine_deinit(struct engine *engine);

/* UFFD_FEATURE_* to ask for, of those that are offered; *lacking out: what it cannot do without. */
uint64_t engine_features(int kind, uint64_t offered, uint64_t *lacking);
/* Whether pages are write-protected. */
static inline bool engine_protects(const struct engine *engine)
{
	return engine->kind == ENGINE_WP_SYNC || engine->kind == ENGINE_WP_ASYNC;
}

/* The vessel lives: opens what the engine reads.  And no more. */
int engine_start(struct pager *pager, struct error *error);
void engine_stop(struct pager *pager);

/* The pager thread, for every kind but wp-sync: feeds the missing page. */
int engine_serve(struct pager *pager, const struct region *region, uint64_t page, bool write);
/* The vessel stands in a system call: the page is fed, and what the program wrote so far stays known. */
int engine_populate(struct pager *pager, uint64_t page);
/* Copies the page in, with what the engine needs to see it written. */
int engine_copy(struct pager *pager, uint64_t page, const void *from, bool protect);

/* The vessel is stopped. */
/* Before it runs on. */
int engine_about_to_run(struct pager *pager);
/* Notes what was written since the last look, if anything ran. */
int engine_settle(struct pager *pager);
/* A system call is about to change the layout; `pages_go`: some pages will be dropped or moved.  What
 * would be forgotten with it is noted. */
int engine_before_layout(struct pager *pager, bool pages_go);
/* The page is here now, without having been fed here. */
int engine_moved(struct pager *pager, uint64_t page);
/* What was just written to the page was not written by the program. */
int engine_disregard(struct pager *pager, uint64_t page);

#endif
