/* wp-async: UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN (Linux 6.7). */
#define _GNU_SOURCE
#include <fcntl.h>

#include "kernel/pagemap.h"
#include "kernel/proc.h"
#include "pager/note.h"
#include "pager/pager.h"

#define ROOM 256 /* ranges of one ioctl */
#define ADDRESSES (1ul << 63)

/* Whoever asks for PAGE_IS_WRITTEN alone gets it from every kernel: with other categories a page
 * that was swapped out is passed over, and until mid-2026 one that was dropped.  What was never fed
 * may read as written, too; those pages are left out here. */
static const struct page_scan WRITTEN = {.mask = PAGE_WRITTEN, .protect = true, .lenient = true};

static int note_range(struct pager *pager, uint64_t start, uint64_t end)
{
	for (uint64_t page = start; page < end; page += PAGE_BYTES) {
		const struct page_slot *slot = pages_find(&pager->pages, page);
		int rc = slot && slot->present ? note_collected(pager, page) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int start(struct pager *pager, struct error *error)
{
	pager->tracker.pagemap_fd = proc_open(pager->vessel, "pagemap", O_RDONLY, error);
	return pager->tracker.pagemap_fd < 0 ? pager->tracker.pagemap_fd : 0;
}

static int copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	return uffd_copy_page(pager->uffd, page, from, protect);
}

static int ignore(struct pager *pager, uint64_t page)
{
	return uffd_protect(pager->uffd, page, PAGE_BYTES, true);
}

/* Notes the pages written since it was called last, and protects them again. */
static int collect(struct pager *pager)
{
	struct page_range ranges[ROOM];
	uint64_t at = 0;
	int got;

	do {
		got = pagemap_scan_fd(pager->tracker.pagemap_fd, &WRITTEN, at, ADDRESSES, ranges, ROOM, &at);
		for (int i = 0; i < got; i++) {
			int rc = note_range(pager, ranges[i].start, ranges[i].end);
			if (rc < 0)
				return rc;
		}
	} while (got == ROOM);
	return got < 0 ? got : 0;
}

const struct tracker_kind tracker_wp_async = {
	.name = "wp-async",
	.needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_ASYNC,
	.useful = UFFD_FEATURE_WP_UNPOPULATED,
	.protects = true,
	.start = start,
	.copy = copy,
	.collect = collect,
	.collects_before_pages_go = true,
	.ignore = ignore,
};
