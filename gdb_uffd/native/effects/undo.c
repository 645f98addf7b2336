#define _GNU_SOURCE
#include "effects/undo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "effects/transaction.h"

void undo_deinit(struct undo *undo)
{
	for (size_t i = 0; i < undo->count; i++)
		free(undo->at[i].before);
	free(undo->at);
	regions_deinit(&undo->regions);
	*undo = (struct undo){0};
}

static int by_page(const void *left, const void *right)
{
	uint64_t a = ((const struct undo_page *)left)->page, b = ((const struct undo_page *)right)->page;

	return a < b ? -1 : a > b;
}

static const struct undo_page *find(const struct undo *undo, uint64_t page, size_t count)
{
	struct undo_page key = {.page = page};

	return count ? bsearch(&key, undo->at, count, sizeof(key), by_page) : NULL;
}

int undo_take(struct undo *undo, struct pager *pager)
{
	size_t had = undo->count, room = had + pager->pages.written_count;

	if (pager->mappings_changed && !undo->mappings_changed) {
		int rc = regions_copy(&undo->regions, &pager->at_tx);
		if (rc < 0)
			return rc;
		undo->mappings_changed = true;
	}
	if (room == 0)
		return 0;
	struct undo_page *at = realloc(undo->at, room * sizeof(*at));
	if (!at)
		return -ENOMEM;
	undo->at = at;
	for (size_t i = 0; i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (!w->in_tx || find(undo, w->page, had))
			continue;
		at[undo->count++] = (struct undo_page){w->page, w->was_dirty ? w->before : NULL};
		if (w->was_dirty)
			w->before = NULL;
	}
	qsort(at, undo->count, sizeof(*at), by_page);
	return 0;
}

static int copy_page(struct pager *fresh, const struct written *from, const uint8_t *bytes)
{
	struct written *w = pages_make_written(&fresh->pages, from->page);

	if (!w || !(w->overlay = malloc(PAGE_BYTES)))
		return -ENOMEM;
	memcpy(w->overlay, bytes, PAGE_BYTES);
	w->dirty = true;
	w->first_ever = from->first_ever;
	w->kept_writers = from->kept_writers;
	return 0;
}

int undo_export(const struct undo *undo, struct pager *pager, struct pager *fresh)
{
	uint8_t scratch[PAGE_BYTES];
	int rc = tracker_sync(pager);

	if (rc == 0)
		rc = regions_copy(&fresh->regions, undo->mappings_changed ? &undo->regions : &pager->regions);
	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		const struct written *w = &pager->pages.written[i];
		const struct undo_page *u = find(undo, w->page, undo->count);
		const uint8_t *bytes = u ? u->before : scratch;
		if (u ? !u->before : !w->dirty)
			continue;
		rc = u ? 0 : transaction_page_now(pager, w, scratch);
		if (rc == 0)
			rc = copy_page(fresh, w, bytes);
		else if (rc == -ENOENT) /* not mapped any more, nor touched by what is undone */
			rc = 0;
	}
	return rc;
}
