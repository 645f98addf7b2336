/* layout.h - brk, mmap, munmap, mremap, mprotect, madvise of the running program. */
#ifndef GDB_UFFD_LAYOUT_H
#define GDB_UFFD_LAYOUT_H

#include "vessel.h"

/* The vessel stands before the call in `regs`.  On return it stands after it (the call was made,
 * the region table follows it) or will skip it. */
int layout_system_call(struct vessel *vessel, struct registers *regs);

/* Makes the call that the vessel stands before, with the registers as they are given; out: the
 * registers behind it, and its result. */
int layout_finish_call(struct vessel *vessel, struct registers *regs, int64_t *result);

#endif
