/* pagemap.h - PAGEMAP_SCAN, Documentation/admin-guide/mm/pagemap.rst (Linux 6.7). */
#ifndef GDB_UFFD_PAGEMAP_H
#define GDB_UFFD_PAGEMAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE_WRITTEN (1u << 1)
#define PAGE_FILE (1u << 2)
#define PAGE_PRESENT (1u << 3)

struct page_range {
	uint64_t start, end, categories;
};

/* Ranges of pages that have all of `categories`, in [start, end).  Returns how many, at most
 * `room`, or -errno (-ENOTTY: a kernel without it). */
int pagemap_scan(pid_t pid, uint64_t start, uint64_t end, uint64_t categories,
		 struct page_range *ranges, size_t room);

#endif
