/* What PAGEMAP_SCAN makes of pages that are not there: tried on four pages of our own. */
#define _GNU_SOURCE
#include "kernel/pagemap_quirks.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/cleanup.h"
#include "kernel/pagemap.h"

enum { UNTOUCHED, POPULATED, DROPPED, KEPT, PAGES };

/* A bit for each page that the scan gives. */
static int scan(int pagemap, uint64_t start, const struct page_scan *what)
{
	struct page_range ranges[PAGES];
	int found = 0;

	int got = pagemap_scan_fd(pagemap, what, start, start + PAGES * PAGE_BYTES, ranges, PAGES, NULL);
	for (int i = 0; i < got; i++)
		for (uint64_t at = ranges[i].start; at < ranges[i].end; at += PAGE_BYTES)
			found |= 1 << ((at - start) / PAGE_BYTES);
	return got < 0 ? got : found;
}

static int try_pages(int uffd, int pagemap, volatile uint8_t *at)
{
	const struct page_scan alone = {.mask = PAGE_WRITTEN};
	const struct page_scan also = {.mask = PAGE_WRITTEN, .anyof = PAGE_PRESENT | PAGE_WRITTEN};
	uint64_t start = (uint64_t)at, features = 0;
	struct uffdio_register reg = {
		.range = {.start = start, .len = PAGES * PAGE_BYTES},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	int rc = uffd_api(uffd, UFFD_FEATURE_WP_ASYNC, &features);
	if (rc < 0)
		return rc;
	for (int i = POPULATED; i < PAGES; i++)
		at[i * PAGE_BYTES] = 1;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	rc = uffd_protect(uffd, start + POPULATED * PAGE_BYTES, (PAGES - POPULATED) * PAGE_BYTES, true);
	if (rc < 0)
		return rc;
	at[DROPPED * PAGE_BYTES] = at[KEPT * PAGE_BYTES] = 2;
	if (madvise((void *)(at + DROPPED * PAGE_BYTES), PAGE_BYTES, MADV_DONTNEED) < 0)
		return -errno;
	int found = scan(pagemap, start, &alone), more = scan(pagemap, start, &also);
	if (found < 0 || more < 0)
		return found < 0 ? found : more;
	if (!(found & 1 << KEPT) || found & 1 << POPULATED)
		return -EPROTO; /* writes are not told at all */
	return (found & 1 << UNTOUCHED ? SCAN_UNPOPULATED_WRITTEN : 0) |
	       (more & 1 << DROPPED ? 0 : SCAN_DROPPED_CLEAN) |
	       (found & 1 << DROPPED ? 0 : SCAN_DROPPED_LOST);
}

int pagemap_quirks(const struct uffd_offer *offer)
{
	if (offer->way < 0 || !(offer->features & UFFD_FEATURE_WP_ASYNC))
		return -EOPNOTSUPP;
	uint8_t *at = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	CLOSED int uffd = uffd_open(offer->way);
	CLOSED int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int rc = uffd < 0 ? uffd : pagemap < 0 ? -errno : try_pages(uffd, pagemap, at);
	munmap(at, PAGES * PAGE_BYTES);
	return rc;
}
