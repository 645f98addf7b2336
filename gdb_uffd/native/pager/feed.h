/* feed.h - how a page gets into the vessel. */
#ifndef GDB_UFFD_FEED_H
#define GDB_UFFD_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/python.h"

struct pager;
struct region;

/* Feeds one page.  -EFAULT: its source failed. */
int feed_page(struct pager *pager, const struct region *region, uint64_t page, bool protect);
/* ... for a thread that waits for it: what it wrote so far stays known. */
int feed_touched(struct pager *pager, const struct region *region, uint64_t page, bool protect);
/* A page that is read and that nothing was recorded of: the kernel's page of zeros, and where pages are read one
 * after the other, more of them at once.  1: it was fed; 0: it is another's; or an error. */
int feed_zeros(struct pager *pager, const struct region *region, uint64_t page);

/* The vessel is stopped: the pages that are not there yet. */
int feed_missing(struct pager *pager, uint64_t page);
PYTHON int feed_range(struct pager *pager, uint64_t start, uint64_t end);
/* ... it stands in a system call, and what the program wrote so far stays known. */
int feed_for_call(struct pager *pager, uint64_t page);
/* Whether the page is there or may be (pager->limit); otherwise pager->over_limit is set. */
bool feed_has_room(struct pager *pager, uint64_t page);

#endif
