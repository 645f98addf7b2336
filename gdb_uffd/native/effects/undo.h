/* undo.h - how memory was before the last transaction, so that it can be run once more. */
#ifndef GDB_UFFD_UNDO_H
#define GDB_UFFD_UNDO_H

#include "kernel/python.h"
#include "pager/pager.h"

struct undo_page {
	uint64_t page;
	uint8_t *before; /* 4096 bytes; NULL: as recorded */
};

/* The way back over transactions that were kept; sorted by page. */
PYTHON struct undo {
	struct undo_page *at;
	size_t count;
	struct regions regions; /* as they were, if `mappings_changed` */
	bool mappings_changed;
};

PYTHON void undo_deinit(struct undo *undo);
/* The open transaction is about to be committed: takes its before-images over (they are the
 * undo's from then on), unless an earlier transaction left one for that page. */
PYTHON int undo_take(struct undo *undo, struct pager *pager);
/* Gives `fresh`, which serves nothing yet, the memory that `pager` had before all of it. */
PYTHON int undo_export(const struct undo *undo, struct pager *pager, struct pager *fresh);

#endif
