/* transaction.h - what was written since it began: report it, keep it, or undo it. */
#ifndef GDB_UFFD_TRANSACTION_H
#define GDB_UFFD_TRANSACTION_H

#include "effects/changes.h"
#include "kernel/python.h"
#include "pager/pager.h"

/* The vessel is stopped (or there is none). */
PYTHON int transaction_collect(struct pager *pager, struct changes *changes);
/* Everything that differs from the snapshot. */
PYTHON int transaction_collect_all(struct pager *pager, struct changes *changes);

/* Keep the images of a page of a list that is truncated; -ENOENT: not mapped any more. */
PYTHON int transaction_load(struct pager *pager, struct changes *changes, size_t index);

/* The page as it is now, wherever it lies.  -ENOENT: not mapped any more. */
int transaction_page_now(struct pager *pager, const struct written *w, uint8_t *to);

/* The page as it was when the program first ran in the transaction: behind gdb's own mallocs for the
 * arguments, and all pages at one instant. */
int transaction_page_at_call(struct pager *pager, const struct written *w, uint8_t *to);
/* How memory was mapped then. */
static inline const struct regions *transaction_regions_at_call(const struct pager *pager)
{
	if (pager->mappings_at_call)
		return &pager->at_call;
	return pager->mappings_changed ? &pager->at_tx : &pager->regions;
}

/* Between the calls of one transaction: so that the next call's first write is seen as its own. */
PYTHON int transaction_rearm(struct pager *pager);
PYTHON int transaction_commit(struct pager *pager);
/* Whether the program itself wrote that page in the open transaction. */
PYTHON bool transaction_program_wrote(const struct pager *pager, uint64_t page);
/* 0: undone in place.  1: mappings had changed, or `rebuild`: the vessel must be destroyed, the
 * next one will be fed with what was kept before. */
PYTHON int transaction_discard(struct pager *pager, bool rebuild);
/* Back to the snapshot; no vessel lives. */
PYTHON int transaction_reset(struct pager *pager);

#endif
