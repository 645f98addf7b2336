/* transaction.h - what was written since it began: report it, keep it, or undo it. */
#ifndef GDB_UFFD_TRANSACTION_H
#define GDB_UFFD_TRANSACTION_H

#include "pager.h"
#include "vessel.h"

/* One page of a report; the images belong to the report. */
struct change {
	uint64_t page;
	struct access first;
	uint8_t writers;
	uint32_t bytes_changed;
	uint8_t *before, *after; /* NULL when nothing differs, but for what was moved */
	uint8_t *old;            /* as it was when the program first ran, where that is not `before`;
				  * else NULL */
	bool counts_malloc;      /* what gdb's own malloc wrote is among what differs */
	const uint64_t *callers; /* of `first`, a zero behind the last; belongs to the pager and is good until the
				  * transaction is closed; or NULL */
};

struct changes {
	struct change *at;
	size_t count;
	bool all;       /* everything since the snapshot */
	struct change *gone; /* pages that were unmapped: only how they were before, sorted */
	size_t gone_count;
	bool layout;    /* mappings changed: */
	struct regions was, is; /* then those before and after */
	bool truncated; /* more pages than images may be kept for: transaction_load takes those of some */
};

#define IMAGES_MAX 16384 /* pages whose images one report keeps: 128 MiB of both */

void changes_deinit(struct changes *changes);

/* The vessel is stopped (or there is none). */
int transaction_collect(struct pager *pager, struct changes *changes);
/* Everything that differs from the snapshot. */
int transaction_collect_all(struct pager *pager, struct changes *changes);

/* Keep the images of a page of a list that is truncated; -ENOENT: not mapped any more. */
int transaction_load(struct pager *pager, struct changes *changes, size_t index);

/* The page as it was when the transaction began. */
int transaction_page_before(struct pager *pager, const struct written *w, uint8_t *to);
/* The page as it is now, wherever it lies.  -ENOENT: not mapped any more. */
int transaction_page_now(struct pager *pager, const struct written *w, uint8_t *to);

/* The page as it was when the program first ran in the transaction: behind gdb's own mallocs for the
 * arguments, and all pages at one instant. */
int transaction_page_at_call(struct pager *pager, const struct written *w, uint8_t *to);
/* How memory was mapped then. */
static inline const struct regions *transaction_regions_at_call(const struct pager *pager)
{
	if (pager->layout_at_call)
		return &pager->at_call;
	return pager->layout_changed ? &pager->at_tx : &pager->regions;
}

/* Between the calls of one transaction: so that the next call's first write is seen as its own. */
int transaction_rearm(struct pager *pager);
/* gdb.c.  Something other than gdb's own malloc is about to run: what was before it is this, from now on. */
int gdb_begin_program(struct pager *pager);
/* gdb's own call of malloc is over: what the program changes on its pages counts from here. */
int gdb_end_malloc(struct pager *pager);
/* As pager_write, of a frame, an argument or an assignment. */
int gdb_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer);
int transaction_commit(struct pager *pager);
/* Whether the program itself wrote that page in the open transaction. */
bool transaction_program_wrote(const struct pager *pager, uint64_t page);
/* 0: undone in place.  1: the layout had changed, or `rebuild`: the vessel must be destroyed, the
 * next one will be fed with what was kept before. */
int transaction_discard(struct pager *pager, bool rebuild);
/* Back to the snapshot; no vessel lives. */
int transaction_reset(struct pager *pager);

/* Pages that only one of the two lists has as written by one of `writers`, or that it left with
 * other bytes; `first` out: the lowest of them.  Pages without images are taken as equal. */
size_t changes_differ(const struct changes *left, const struct changes *right, int writers,
		      uint64_t *first);

/* How many of the bytes differ. */
uint32_t count_changed(const uint8_t *before, const uint8_t *after, size_t len);

/* Differing stretches of two pages, joined over at most `gap` equal bytes: offsets and lengths
 * into `runs` (pairs), at most `room` pairs; returns how many there are in all. */
size_t diff_runs(const uint8_t *before, const uint8_t *after, size_t gap, uint16_t *runs, size_t room);

#endif
