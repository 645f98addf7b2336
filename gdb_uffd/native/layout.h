/* layout.h - brk, mmap, munmap, mremap, mprotect, madvise of the running program. */
#ifndef GDB_UFFD_LAYOUT_H
#define GDB_UFFD_LAYOUT_H

#include "vessel.h"

/* The vessel stands before the call in `regs`.  On return it stands after it (the call was made,
 * the region table follows it) or will skip it; or pager->over_limit was set, and nothing was done. */
int layout_system_call(struct vessel *vessel, struct registers *regs);

/* Makes the call that the vessel stands before, with the registers as they are given; out: the
 * registers behind it, and its result. */
int layout_finish_call(struct vessel *vessel, struct registers *regs, int64_t *result);
/* ... `notified`: it is notified on its way. */
int layout_finish(struct vessel *vessel, struct registers *regs, bool notified, int64_t *result);

/* map_file.c: mmap(2), with a file or without. */
int layout_mmap(struct vessel *vessel, struct registers *regs);

/* remap.c: mremap(2). */
int layout_mremap(struct vessel *vessel, struct registers *regs);

/* layout_save.c.  Before a change: how it was, for the way back; pages about to go give their before-image, and
 * count as written where bytes go with them. */
int layout_remember(struct pager *pager);
int layout_save_range(struct vessel *vessel, const struct registers *regs, uint64_t start, uint64_t end);
/* [start, end) is fresh memory of the program: tracked from its first touch.  `flags`: REGION_*. */
int layout_add_zero(struct pager *pager, uint64_t start, uint64_t end, int prot, uint32_t flags);
/* It is no longer mapped. */
int layout_drop(struct pager *pager, uint64_t start, uint64_t end);

static inline uint64_t layout_ceil(uint64_t address)
{
	return (address + 4095) & ~4095ul;
}

#endif
