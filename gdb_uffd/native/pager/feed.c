/* feed.c - how a page gets into the vessel. */
#define _GNU_SOURCE
#include "pager/feed.h"

#include <errno.h>
#include <string.h>

#include "pager/pager.h"
#include "pager/source.h"

#define AHEAD_MAX (8ul << 20) /* bytes of zeros that one touch brings */
#define UNKNOWN_EXACT 64ul    /* pages in a row of unknown ones that are counted when they are touched */

/* The page with the breakpoints that go in with it; -EFAULT when it cannot be read after all. */
static int plant(struct pager *pager, uint64_t page, const uint8_t **from, uint8_t *scratch)
{
	for (size_t i = 0; i < pager->planted_count; i++) {
		uint64_t offset = pager->planted[i] - page;
		if (offset > PAGE_BYTES - BREAKPOINT_BYTES || pager->breakpoint_count == BREAKPOINTS_MAX)
			continue;
		if (*from != scratch && source_copy(scratch, *from, PAGE_BYTES) < 0)
			return -EFAULT;
		*from = scratch;
		struct breakpoint *made = &pager->breakpoints[pager->breakpoint_count++];
		made->address = pager->planted[i];
		memcpy(made->original, scratch + offset, BREAKPOINT_BYTES);
		memcpy(scratch + offset, BREAKPOINT, BREAKPOINT_BYTES);
	}
	return 0;
}

int feed_page(struct pager *pager, const struct region *region, uint64_t page, bool protect)
{
	uint8_t scratch[PAGE_BYTES];
	const uint8_t *from;
	struct written *w = pages_written(&pager->pages, page);
	struct page_slot *slot = pages_get(&pager->pages, page);

	if (!slot)
		return -ENOMEM;
	if (w && w->overlay) {
		from = w->overlay;
	} else if (region->kind == REGION_PAGES) {
		/* Never straight from the file: what was checked must be what is fed. */
		if (source_page(&pager->regions, page, scratch) < 0)
			return -EFAULT;
		from = scratch;
	} else if (region->kind == REGION_BYTES && page - region->start < region->bytes_len &&
		   region->bytes_len - (page - region->start) < PAGE_BYTES) {
		if (source_page(&pager->regions, page, scratch) < 0)
			return -EFAULT;
		from = scratch;
	} else {
		from = region_page(region, page, scratch);
	}
	if (plant(pager, page, &from, scratch) < 0)
		return -EFAULT;
	protect &= tracker_protects(&pager->tracker);
	int rc = tracker_copy(pager, page, from, protect);
	if (rc < 0)
		return rc;
	pages_set_present(&pager->pages, slot, region->kind == REGION_ZERO);
	w = pages_written(&pager->pages, page);
	if (w)
		w->armed = protect;
	/* New memory is no part of what was recorded. */
	if (!(region->flags & (REGION_BORN | REGION_GROWTH))) {
		if (region->flags & REGION_UNKNOWN)
			(*(region->kind == REGION_ZERO ? &pager->unknown_zeros : &pager->unknown_file))++;
		pager->fed++;
		fed_add(&pager->fed_log, page);
	}
	return 0;
}

/* Known to be zeros, without a look at their bytes. */
static bool is_zeros(const struct region *region, uint64_t page)
{
	return region->kind == REGION_ZERO ||
	       (region->kind == REGION_PAGES && !region->slots[(page - region->start) / PAGE_BYTES]);
}

static bool is_untouched(const struct pager *pager, uint64_t page)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);

	return !slot || (!slot->present && !slot->written);
}

/* The area to be fed for a touch of `page`: it alone, or four times the last one where it lies beside that. */
static void zeros_area(const struct pager *pager, const struct region *region, uint64_t page, uint64_t *low,
		       uint64_t *high)
{
	uint64_t near = pager->zeros_high - pager->zeros_low, size = near * 4 < AHEAD_MAX ? near * 4 : AHEAD_MAX;
	bool up = near && page >= pager->zeros_high && page - pager->zeros_high <= near;
	bool down = near && page < pager->zeros_low && pager->zeros_low - page <= near + PAGE_BYTES;

	*low = page;
	*high = page + PAGE_BYTES;
	if (up)
		while (*high < region->end && *high - page < size && is_untouched(pager, *high) &&
		       is_zeros(region, *high))
			*high += PAGE_BYTES;
	else if (down)
		while (*low > region->start && page - *low < size && is_untouched(pager, *low - PAGE_BYTES) &&
		       is_zeros(region, *low - PAGE_BYTES))
			*low -= PAGE_BYTES;
}

int feed_zeros(struct pager *pager, const struct region *region, uint64_t page)
{
	uint64_t low, high, done;

	if (!is_zeros(region, page) || !tracker_tells_first(&pager->tracker) || !is_untouched(pager, page))
		return 0;
	zeros_area(pager, region, page, &low, &high);
	/* What is told of each page is told of those that are touched; of unknown ones the number is, as long
	 * as they are few. */
	bool few = (region->flags & REGION_UNKNOWN) &&
		   pager->zeros_high - pager->zeros_low < UNKNOWN_EXACT * PAGE_BYTES;
	if (pager->touches.on || few) {
		low = page;
		high = page + PAGE_BYTES;
	}
	/* Nobody can write in between: the vessel's only thread waits for this page. */
	int rc = uffd_zero_unseen(pager->uffd, low, high - low, &done);
	if (rc == 0)
		rc = uffd_protect(pager->uffd, low, done, true);
	if (rc < 0)
		return rc == -EEXIST || rc == -EINVAL ? 0 : rc;
	for (uint64_t at = low; at < low + done; at += PAGE_BYTES) {
		struct page_slot *slot = pages_get(&pager->pages, at);
		if (!slot)
			return -ENOMEM;
		pages_set_shared(&pager->pages, slot);
		if (region->flags & (REGION_BORN | REGION_GROWTH))
			continue;
		if (region->flags & REGION_UNKNOWN)
			pager->unknown_zeros++;
		pager->fed++;
		pager->fed_ahead += at != page;
		fed_add(&pager->fed_log, at);
	}
	bool up = few && low == pager->zeros_high, down = few && low + done == pager->zeros_low;
	if (!up)
		pager->zeros_low = low;
	if (!down)
		pager->zeros_high = low + done;
	rc = page < low + done ? uffd_wake_page(pager->uffd, page) : 0;
	return rc < 0 ? rc : page < low + done;
}

int feed_missing(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);
	struct page_slot *slot = pages_find(&pager->pages, page);

	if (slot && slot->present)
		return 0;
	if (!region || region->kind == REGION_UNAVAILABLE)
		return -EFAULT;
	if (region->kind == REGION_NATIVE)
		return 0;
	return feed_page(pager, region, page, true);
}

bool feed_has_room(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);
	const struct page_slot *slot = pages_find(&pager->pages, page);

	if (!pager->limit || pager->pages.grown < pager->limit || (slot && slot->present && !slot->shared) || !region ||
	    region->kind != REGION_ZERO)
		return true;
	pager->over_limit = true;
	return false;
}

int feed_range(struct pager *pager, uint64_t start, uint64_t end)
{
	for (uint64_t page = start; page < end; page += PAGE_BYTES) {
		int rc = feed_missing(pager, page);
		if (rc < 0 && rc != -EFAULT)
			return rc;
	}
	return 0;
}

int feed_touched(struct pager *pager, const struct region *region, uint64_t page, bool protect)
{
	int rc = tracker_before_feed(pager);

	if (rc == 0)
		rc = feed_page(pager, region, page, protect);
	return rc == 0 ? tracker_after_feed(pager, page) : rc;
}

int feed_for_call(struct pager *pager, uint64_t page)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);
	bool looked_at = pager->tracker.ran && !(slot && slot->present);

	int rc = looked_at ? tracker_before_feed(pager) : 0;
	if (rc == 0)
		rc = feed_missing(pager, page);
	return rc == 0 && looked_at ? tracker_after_feed(pager, page) : rc;
}
