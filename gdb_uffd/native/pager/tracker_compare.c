/* compare: every page that was fed against what it held at the last look. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pager/note.h"
#include "pager/pager.h"
#include "pager/source.h"

/* The page as it was at the last look: seen then, or as it was fed. */
static int last_seen(struct pager *pager, const struct written *w, uint64_t page, uint8_t *to)
{
	if (w && (w->seen || w->overlay)) {
		memcpy(to, w->seen ? w->seen : w->overlay, PAGE_BYTES);
		return 0;
	}
	return source_page(&pager->regions, page, to);
}

static int keep(struct written *w, const uint8_t *now)
{
	if (!w->seen && !(w->seen = malloc(PAGE_BYTES)))
		return -ENOMEM;
	memcpy(w->seen, now, PAGE_BYTES);
	return 0;
}

/* As the page is now counts as looked at. */
static int ignore(struct pager *pager, uint64_t page)
{
	struct written *w = pages_written(&pager->pages, page);
	uint8_t now[PAGE_BYTES];

	int rc = w ? source_vessel(pager, page, now) : 0;
	return w && rc == 0 ? keep(w, now) : rc;
}

static int look_at(struct pager *pager, uint64_t page)
{
	uint8_t now[PAGE_BYTES], then[PAGE_BYTES];

	int rc = source_vessel(pager, page, now);
	if (rc == 0)
		rc = last_seen(pager, pages_written(&pager->pages, page), page, then);
	if (rc < 0 || memcmp(now, then, PAGE_BYTES) == 0)
		return rc;
	rc = note_collected(pager, page);
	return rc < 0 ? rc : keep(pages_written(&pager->pages, page), now);
}

/* Notes the pages whose bytes differ from those of the last look. */
static int collect(struct pager *pager)
{
	for (size_t i = 0; i <= pager->pages.slot_mask; i++) {
		const struct page_slot *slot = &pager->pages.slots[i];
		int rc = slot->present ? look_at(pager, slot->page) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	(void)protect;
	return uffd_copy_page(pager->uffd, page, from, false);
}

const struct tracker_kind tracker_compare = {
	.name = "compare",
	.copy = copy,
	.collect = collect,
	.collects_before_pages_go = true,
	.ignore = ignore,
};
