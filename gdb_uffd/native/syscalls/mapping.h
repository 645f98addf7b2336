/* mapping.h - brk, mmap, munmap, mremap, mprotect, madvise of the running program. */
#ifndef GDB_UFFD_MAPPING_H
#define GDB_UFFD_MAPPING_H

#include <stdint.h>

struct pager;
struct registers;
struct vessel;

/* The vessel stands before the call in `regs`.  On return it stands after it (the call was made,
 * the table of mappings follows it) or will skip it; or pager->over_limit was set, and nothing was done. */
int mapping_brk(struct vessel *vessel, struct registers *regs);
int mapping_mmap(struct vessel *vessel, struct registers *regs);
int mapping_munmap(struct vessel *vessel, struct registers *regs);
int mapping_mremap(struct vessel *vessel, struct registers *regs);
int mapping_mprotect(struct vessel *vessel, struct registers *regs);
int mapping_madvise(struct vessel *vessel, struct registers *regs);

/* Before a change: how it was, for the way back; pages about to go give their before-image, and
 * count as written where bytes go with them. */
int mapping_remember(struct pager *pager);
int mapping_save(struct vessel *vessel, const struct registers *regs, uint64_t start, uint64_t end);
/* [start, end) is fresh memory of the program: tracked from its first touch.  `flags`: REGION_*. */
int mapping_add(struct pager *pager, uint64_t start, uint64_t end, int prot, uint32_t flags);
/* It is no longer mapped. */
int mapping_drop(struct pager *pager, uint64_t start, uint64_t end);

static inline uint64_t mapping_ceil(uint64_t address)
{
	return (address + 4095) & ~4095ul;
}

#endif
