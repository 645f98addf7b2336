/* callers.h - likely return addresses among the words above a stack pointer. */
#ifndef GDB_UFFD_CALLERS_H
#define GDB_UFFD_CALLERS_H

#include "pager.h"

/* The words of `stack` that point into executable memory right behind a call instruction, in
 * order, at most `room`.  No unwinding: a stale word can look like one. */
size_t callers_find(struct pager *pager, const uint64_t *stack, size_t words, uint64_t *callers,
		    size_t room);

#endif
