/* view.h - memory as it is, as it was before or after the last report, or as it was recorded. */
#ifndef GDB_UFFD_VIEW_H
#define GDB_UFFD_VIEW_H

#include <stddef.h>
#include <stdint.h>

#include "effects/transaction.h"
#include "kernel/python.h"

PYTHON enum view_kind {
	VIEW_NOW = 0,
	VIEW_BEFORE = 1,   /* the report's pages as they were before, all else as it is now */
	VIEW_AFTER = 2,
	VIEW_RECORDED = 3,
	VIEW_OPEN = 4,     /* as it was when the program first ran in the open transaction, unmapped memory
			    * included */
};

#define VIEW_PAGES 64 /* pages remembered: a search comes back to the same few */

/* A reader; good until the vessel runs, a transaction ends or `changes` goes. */
PYTHON struct view {
	struct pager *pager;
	const struct changes *changes; /* sorted by page; may be NULL */
	int kind;
	uint64_t tags[VIEW_PAGES];     /* page of each slot; 0: none */
	uint8_t *pages;                /* VIEW_PAGES * 4096 bytes */
};

PYTHON int view_init(struct view *view);
PYTHON void view_deinit(struct view *view);
/* From now on `view` reads that state; what it remembered is forgotten. */
PYTHON void view_set(struct view *view, struct pager *pager, const struct changes *changes, int kind);

/* The 4096 bytes of a page, good until the next call; NULL where they cannot be had. */
const uint8_t *view_page(struct view *view, uint64_t page);
/* -EFAULT unless all bytes can be had; `done` out: how many from `address` on. */
PYTHON int view_read(struct view *view, uint64_t address, uint8_t *to, size_t len, size_t *done);
/* A little-endian word.  0 or -EFAULT. */
int view_word(struct view *view, uint64_t address, uint64_t *word);

#endif
