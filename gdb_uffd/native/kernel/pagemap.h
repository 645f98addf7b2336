/* pagemap.h - PAGEMAP_SCAN, Documentation/admin-guide/mm/pagemap.rst (Linux 6.7). */
#ifndef GDB_UFFD_PAGEMAP_H
#define GDB_UFFD_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/python.h"

/* Categories (<linux/fs.h>, PAGE_IS_*). */
#define PAGE_WRITTEN (1u << 1)
#define PAGE_FILE (1u << 2)
#define PAGE_PRESENT (1u << 3) /* PYTHON */
#define PAGE_SWAPPED (1u << 4)
#define PAGE_PFNZERO (1u << 5)

PYTHON struct page_range {
	uint64_t start, end, categories;
};

/* Ranges of pages that have all of `categories`, in [start, end).  Returns how many, at most
 * `room`, or -errno (-ENOTTY: a kernel without it). */
PYTHON int pagemap_scan(pid_t pid, uint64_t start, uint64_t end, uint64_t categories, struct page_range *ranges,
			size_t room);

/* Which pages to find: all categories of `mask` (those in `inverted`: not), one of `anyof`. */
struct page_scan {
	uint64_t mask, inverted, anyof;
	bool protect; /* write-protect them as they are found; -EPERM where that is not tracked */
	bool lenient; /* ... but pass over what is not tracked */
};

/* The same on an open /proc/PID/pagemap.  `walked` out: how far it came before `room` was filled. */
int pagemap_scan_fd(int fd, const struct page_scan *what, uint64_t start, uint64_t end,
		    struct page_range *ranges, size_t room, uint64_t *walked);

#endif
