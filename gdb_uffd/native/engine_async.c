/* wp-async: UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN (Linux 6.7). */
#include <errno.h>

#include "engine_look.h"
#include "pagemap.h"
#include "pager.h"

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
		int rc = slot && slot->present ? engine_note(pager, page) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

int wp_async_look(struct pager *pager)
{
	struct page_range ranges[ROOM];
	uint64_t at = 0;
	int got;

	do {
		got = pagemap_scan_fd(pager->engine.pagemap_fd, &WRITTEN, at, ADDRESSES, ranges, ROOM, &at);
		for (int i = 0; i < got; i++) {
			int rc = note_range(pager, ranges[i].start, ranges[i].end);
			if (rc < 0)
				return rc;
		}
	} while (got == ROOM);
	return got < 0 ? got : 0;
}
