#include "effects/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pager/memory.h"
#include "pager/source.h"

int view_init(struct view *view)
{
	*view = (struct view){0};
	view->pages = malloc(VIEW_PAGES * PAGE_BYTES);
	return view->pages ? 0 : -ENOMEM;
}

void view_deinit(struct view *view)
{
	free(view->pages);
	*view = (struct view){0};
}

void view_set(struct view *view, struct pager *pager, const struct changes *changes, int kind)
{
	view->pager = pager;
	view->changes = changes;
	view->kind = kind;
	memset(view->tags, 0, sizeof(view->tags));
}

static const struct change *find(const struct change *at, size_t count, uint64_t page)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (at[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && at[low].page == page ? &at[low] : NULL;
}

/* 1: nothing is known of the page but what is there now. */
static int load_change(const struct changes *changes, bool after, uint64_t page, uint8_t *to)
{
	const struct change *change = changes ? find(changes->at, changes->count, page) : NULL;

	if (change && !after && change->old) {
		memcpy(to, change->old, PAGE_BYTES);
		return 0;
	}
	if (change && (change->bytes_changed || change->before)) {
		const uint8_t *image = after ? change->after : change->before;
		if (!image) /* beyond IMAGES_MAX */
			return -EFAULT;
		memcpy(to, image, PAGE_BYTES);
		return 0;
	}
	if (!changes || !changes->mappings)
		return 1;
	const struct region *was = regions_find(&changes->was, page), *is = regions_find(&changes->is, page);
	if (!(after ? is : was))
		return -EFAULT;
	if (was && is)
		return 1;
	change = find(changes->gone, changes->gone_count, page);
	if (change)
		memcpy(to, change->before, PAGE_BYTES);
	else if ((after ? is : was)->kind == REGION_UNAVAILABLE)
		return -EFAULT;
	else if (after && is->kind != REGION_ZERO)
		return 1; /* of a file that may be closed by now */
	else
		return source_page(after ? &changes->is : &changes->was, page, to);
	return 0;
}

static int load_open(struct pager *pager, uint64_t page, uint8_t *to)
{
	const struct written *w = pages_written(&pager->pages, page);
	const struct regions *regions = transaction_regions_at_call(pager);
	const struct region *region = regions_find(regions, page);
	size_t done;

	if (w && w->in_tx && (w->before || (w->after_malloc && !w->late)))
		return transaction_page_at_call(pager, w, to);
	if (!w || !w->in_tx)
		if (memory_read(pager, page, to, PAGE_BYTES, &done) == 0)
			return 0;
	if (!region || region->kind == REGION_UNAVAILABLE)
		return -EFAULT;
	return source_page(regions, page, to);
}

static int load(struct view *view, uint64_t page, uint8_t *to)
{
	size_t done;

	if (view->kind == VIEW_RECORDED) {
		const struct region *region = regions_find(&view->pager->recorded, page);
		if (!region || region->kind == REGION_UNAVAILABLE)
			return -EFAULT;
		return source_page(&view->pager->recorded, page, to);
	}
	if (view->kind == VIEW_OPEN)
		return load_open(view->pager, page, to);
	int rc = view->kind == VIEW_NOW ? 1 : load_change(view->changes, view->kind == VIEW_AFTER, page, to);
	if (rc <= 0)
		return rc;
	return memory_read(view->pager, page, to, PAGE_BYTES, &done);
}

const uint8_t *view_page(struct view *view, uint64_t page)
{
	/* Neighbours must not share a slot: a search goes up and down a few pages. */
	size_t slot = (size_t)(page / PAGE_BYTES) % VIEW_PAGES;
	uint8_t *bytes = view->pages + slot * PAGE_BYTES;

	if (view->tags[slot] == page && page)
		return bytes;
	view->tags[slot] = 0;
	if (!page || load(view, page, bytes) < 0)
		return NULL;
	view->tags[slot] = page;
	return bytes;
}

int view_read(struct view *view, uint64_t address, uint8_t *to, size_t len, size_t *done)
{
	*done = 0;
	while (*done < len) {
		uint64_t at = address + *done;
		size_t offset = at % PAGE_BYTES, part = PAGE_BYTES - offset;
		const uint8_t *page = view_page(view, at - offset);
		if (!page)
			return -EFAULT;
		if (part > len - *done)
			part = len - *done;
		memcpy(to + *done, page + offset, part);
		*done += part;
	}
	return 0;
}

int view_word(struct view *view, uint64_t address, uint64_t *word)
{
	size_t done;

	return view_read(view, address, (uint8_t *)word, sizeof(*word), &done);
}
