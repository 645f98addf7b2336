/* ranges.h - growing lists of address ranges, sorted and disjoint unless a comment says otherwise. */
#ifndef GDB_UFFD_RANGES_H
#define GDB_UFFD_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/pagemap.h"
#include "kernel/python.h"

PYTHON struct ranges {
	struct page_range *at;
	size_t count, room;
};

PYTHON void ranges_deinit(struct ranges *ranges);

/* Room for `more` ranges behind the last.  0 or -ENOMEM. */
int ranges_reserve(struct ranges *ranges, size_t more);

/* Appends one.  0 or -ENOMEM. */
int ranges_add(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t categories);

/* Index of the first range that ends after `address`. */
size_t ranges_after(const struct ranges *ranges, uint64_t address);

/* Sorts those from index `first` on, and joins what touches and has the same categories. */
void ranges_join(struct ranges *ranges, size_t first);

/* Appends to `out` what `from` has in [start, end) and `less` has not.  0 or -ENOMEM. */
PYTHON int ranges_subtract(struct ranges *out, const struct ranges *from, const struct ranges *less,
			   uint64_t start, uint64_t end);

#endif
