/* heap_refs.h - words in memory that point into given ranges. */
#ifndef GDB_UFFD_HEAP_REFS_H
#define GDB_UFFD_HEAP_REFS_H

#include <stddef.h>
#include <stdint.h>

#include "effects/view.h"
#include "kernel/python.h"

PYTHON struct heap_ref {
	uint64_t at, value; /* the word's address, and what it holds */
	uint32_t wanted;    /* which of the ranges */
};

/* The aligned words in [start, end) whose value lies in one of the ranges [starts[i], ends[i]),
 * sorted and disjoint, as many as have `room`; pages that cannot be had are passed over and counted
 * in `lost`.  Returns how many; `next` out: where to go on, `end` when all was looked at. */
PYTHON size_t heap_refs_find(struct view *view, uint64_t start, uint64_t end, const uint64_t *starts,
			     const uint64_t *ends, size_t count, struct heap_ref *out, size_t room,
			     uint64_t *next, uint64_t *lost);

#endif
