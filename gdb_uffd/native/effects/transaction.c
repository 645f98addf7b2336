#define _GNU_SOURCE
#include "effects/transaction.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pager/source.h"

int transaction_page_now(struct pager *pager, const struct written *w, uint8_t *to)
{
	const struct region *region = regions_find(&pager->regions, w->page);
	struct page_slot *slot = pages_find(&pager->pages, w->page);

	if (!region || region->kind == REGION_UNAVAILABLE)
		return -ENOENT;
	if (slot->present && pager->running)
		return source_vessel(pager, w->page, to);
	if (w->overlay) {
		memcpy(to, w->overlay, PAGE_BYTES);
		source_mask(pager, w->page, to, PAGE_BYTES);
		return 0;
	}
	return source_page(&pager->regions, w->page, to);
}

static int by_page(const void *left, const void *right)
{
	uint64_t a = ((const struct change *)left)->page, b = ((const struct change *)right)->page;

	return a < b ? -1 : a > b;
}

/* Of a page that was moved here also where nothing differs: these bytes were elsewhere before. */
static int keep_images(struct change *change, bool moved, const uint8_t *before, const uint8_t *after)
{
	if ((!change->bytes_changed && !moved) || change->before)
		return 0;
	change->before = malloc(PAGE_BYTES);
	change->after = malloc(PAGE_BYTES);
	if (!change->before || !change->after)
		return -ENOMEM;
	memcpy(change->before, before, PAGE_BYTES);
	memcpy(change->after, after, PAGE_BYTES);
	return 0;
}

/* The page before and after; -ENOENT: not mapped any more. */
static int images(struct pager *pager, const struct written *w, bool all, uint8_t *before, uint8_t *after)
{
	int rc = transaction_page_now(pager, w, after);

	if (rc < 0)
		return rc;
	if (all)
		return source_page(&pager->recorded, w->page, before);
	const uint8_t *from = w->writers & WRITERS_MEANT && !w->assigned_first ? w->after_malloc : NULL;
	if (w->origin && !regions_find(&pager->at_tx, w->page)) /* else that is what was there */
		from = w->origin;
	if (!from)
		return source_before(pager, w, before);
	memcpy(before, from, PAGE_BYTES);
	return 0;
}

int transaction_page_at_call(struct pager *pager, const struct written *w, uint8_t *to)
{
	if (!w->after_malloc || w->late)
		return source_before(pager, w, to);
	memcpy(to, w->after_malloc, PAGE_BYTES);
	return 0;
}

/* What the views need of pages that gdb's own malloc wrote: all of memory at one instant. */
static int keep_old(struct pager *pager, const struct written *w, const uint8_t *before, struct change *change)
{
	uint8_t old[PAGE_BYTES];

	change->counts_malloc = w->counts_malloc;
	if (!(w->writers & WRITER_MALLOC) || w->origin || transaction_page_at_call(pager, w, old) < 0 ||
	    !memcmp(old, before, PAGE_BYTES))
		return 0;
	if (!(change->old = malloc(PAGE_BYTES)))
		return -ENOMEM;
	memcpy(change->old, old, PAGE_BYTES);
	return 0;
}

/* What the views need of pages that were unmapped, and of mappings that came and went. */
static int collect_mappings(struct pager *pager, struct changes *changes)
{
	uint8_t before[PAGE_BYTES];
	int rc = regions_copy(&changes->was, transaction_regions_at_call(pager));

	changes->mappings = true;
	if (rc == 0)
		rc = regions_copy(&changes->is, &pager->regions);
	if (rc == 0 && !(changes->gone = calloc(pager->pages.written_count, sizeof(*changes->gone))))
		rc = -ENOMEM;
	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		const struct written *w = &pager->pages.written[i];
		if (!w->in_tx || changes->gone_count == IMAGES_MAX || regions_find(&pager->regions, w->page))
			continue;
		if (transaction_page_at_call(pager, w, before) < 0)
			continue;
		struct change *change = &changes->gone[changes->gone_count];
		*change = (struct change){.page = w->page, .before = malloc(PAGE_BYTES)};
		if (!change->before)
			return -ENOMEM;
		memcpy(change->before, before, PAGE_BYTES);
		changes->gone_count++;
	}
	qsort(changes->gone, changes->gone_count, sizeof(*changes->gone), by_page);
	return rc;
}

int transaction_load(struct pager *pager, struct changes *changes, size_t index)
{
	uint8_t before[PAGE_BYTES], after[PAGE_BYTES];
	struct change *change = &changes->at[index];
	const struct written *w = pages_written(&pager->pages, change->page);
	int rc = w ? images(pager, w, changes->all, before, after) : -ENOENT;

	return rc < 0 ? rc : keep_images(change, w->origin, before, after);
}

/* Appends one page, if it has changed; -ENOENT: not mapped any more. */
static int collect_page(struct pager *pager, const struct written *w, struct changes *changes)
{
	uint8_t before[PAGE_BYTES], after[PAGE_BYTES];
	const bool all = changes->all;
	struct change *change = &changes->at[changes->count];
	int rc = images(pager, w, all, before, after);

	if (rc < 0)
		return rc;
	*change = (struct change){.page = w->page, .writers = w->writers, .first = w->first};
	if (all) {
		change->first = w->first_ever;
		change->writers = (w->kept_writers | w->writers) & WRITERS_MEANT;
		if (!change->writers)
			change->writers = WRITER_GDB;
	} else if (change->first.tid) {
		change->callers = w->callers;
	}
	changes->count++;
	change->bytes_changed = changes_count(before, after, PAGE_BYTES);
	rc = changes->truncated ? 0 : keep_images(change, w->origin, before, after);
	if (rc == 0 && !all)
		rc = keep_old(pager, w, before, change);
	/* gdb's breakpoints come and go: only a difference counts in the long run. */
	if (rc == 0 && all && !change->bytes_changed && change->writers == WRITER_GDB)
		changes->count--;
	return rc;
}

static bool is_told(const struct written *w, bool all)
{
	return all ? w->dirty : w->in_tx && w->writers;
}

static int collect(struct pager *pager, bool all, struct changes *changes)
{
	const struct pages *pages = &pager->pages;
	size_t most = 0;

	*changes = (struct changes){.all = all};
	int rc = tracker_sync(pager);
	if (rc < 0 || !pages->written_count)
		return rc;
	changes->at = calloc(pages->written_count, sizeof(*changes->at));
	if (!changes->at)
		return -ENOMEM;
	if (!all && pager->mappings_changed)
		rc = collect_mappings(pager, changes);
	for (size_t i = 0; i < pages->written_count; i++)
		most += is_told(&pages->written[i], all);
	changes->truncated = most > IMAGES_MAX;
	for (size_t i = 0; rc == 0 && i < pages->written_count; i++) {
		if (is_told(&pages->written[i], all))
			rc = collect_page(pager, &pages->written[i], changes);
		if (rc == -ENOENT) /* unmapped meanwhile */
			rc = 0;
	}
	if (rc == 0)
		qsort(changes->at, changes->count, sizeof(*changes->at), by_page);
	return rc;
}

int transaction_collect(struct pager *pager, struct changes *changes)
{
	return collect(pager, false, changes);
}

int transaction_collect_all(struct pager *pager, struct changes *changes)
{
	return collect(pager, true, changes);
}

bool transaction_program_wrote(const struct pager *pager, uint64_t page)
{
	const struct written *w = pages_written(&pager->pages, page);

	return w && w->in_tx && (w->writers & WRITER_PROGRAM);
}

static int arm(struct pager *pager, struct written *w)
{
	struct page_slot *slot = pages_find(&pager->pages, w->page);

	if (w->armed || !pager->running || !slot->present)
		return 0;
	if (!tracker_tells_first(&pager->tracker))
		return tracker_ignore(pager, w->page);
	int rc = uffd_protect(pager->uffd, w->page, PAGE_BYTES, true);
	/* ENOENT: no longer mapped, or not registered: nothing to track there. */
	if (rc == -ENOENT || rc == -ESRCH)
		return 0;
	w->armed = rc == 0;
	return rc;
}

int transaction_rearm(struct pager *pager)
{
	if (!tracker_tells_first(&pager->tracker))
		return tracker_sync(pager); /* a look leaves everything armed */
	for (size_t i = 0; i < pager->pages.written_count; i++) {
		int rc = pager->pages.written[i].in_tx ? arm(pager, &pager->pages.written[i]) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void close_written(struct written *w, bool kept)
{
	free(w->before);
	free(w->after_malloc);
	free(w->origin);
	free(w->seen);
	w->before = w->after_malloc = w->origin = w->seen = NULL;
	w->in_tx = w->late = w->counts_malloc = w->assigned_first = false;
	if (kept)
		w->kept_writers |= w->writers;
	else if (!(w->kept_writers & WRITER_PROGRAM))
		w->first_ever = (struct access){0};
	w->writers = 0;
}

static void close_transaction(struct pager *pager)
{
	pager->mappings_changed = pager->mappings_at_call = pager->program_ran = false;
	pager->emptied_more = pager->unmoved = 0;
	pager->in_malloc = false;
}

/* The page's former bytes back into the vessel; breakpoints inserted there stay. */
static int restore(struct pager *pager, struct written *w)
{
	uint8_t before[PAGE_BYTES];
	int rc = source_before(pager, w, before);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < pager->breakpoint_count; i++) {
		uint64_t offset = pager->breakpoints[i].address - w->page;
		if (offset < PAGE_BYTES) {
			memcpy(pager->breakpoints[i].original, before + offset, BREAKPOINT_BYTES);
			memcpy(before + offset, BREAKPOINT, BREAKPOINT_BYTES);
		}
	}
	if (w->armed)
		uffd_protect(pager->uffd, w->page, PAGE_BYTES, false);
	w->armed = false;
	if (pwrite(pager->mem_fd, before, PAGE_BYTES, (off_t)w->page) != (ssize_t)PAGE_BYTES)
		return -EIO;
	return arm(pager, w);
}

/* gdb wrote to a page that was never fed. */
static void restore_unfed(struct written *w)
{
	if (w->was_dirty && w->before && w->overlay) {
		memcpy(w->overlay, w->before, PAGE_BYTES);
	} else if (!w->was_dirty) {
		free(w->overlay);
		w->overlay = NULL;
	}
}

static int save_overlay(struct pager *pager, struct written *w, bool from_before)
{
	uint8_t now[PAGE_BYTES];
	int rc = from_before ? source_before(pager, w, now) : transaction_page_now(pager, w, now);

	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	if (!w->overlay && !(w->overlay = malloc(PAGE_BYTES)))
		return -ENOMEM;
	memcpy(w->overlay, now, PAGE_BYTES);
	return 0;
}

int transaction_commit(struct pager *pager)
{
	int rc = transaction_rearm(pager);

	for (size_t i = 0; i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (!w->in_tx)
			continue;
		/* What stands now is the next transaction's before-image: who is not told of a first write
		 * has to keep it from here on. */
		if (rc == 0 && w->dirty && !tracker_tells_first(&pager->tracker))
			rc = save_overlay(pager, w, false);
		close_written(w, true);
	}
	maps_commit(&pager->maps);
	close_transaction(pager);
	return rc;
}

static int discard_by_rebuilding(struct pager *pager)
{
	for (size_t i = 0; i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (!w->dirty)
			continue;
		bool kept = w->in_tx ? w->was_dirty : true;
		int rc = kept ? save_overlay(pager, w, w->in_tx) : 0;
		if (rc < 0)
			return rc;
		if (!kept) {
			free(w->overlay);
			w->overlay = NULL;
		}
		w->dirty = kept;
		if (w->in_tx)
			close_written(w, false);
	}
	if (pager->mappings_changed) {
		struct regions now = pager->regions;
		pager->regions = pager->at_tx;
		pager->at_tx = now;
	}
	maps_drop(&pager->maps, false);
	close_transaction(pager);
	return 1;
}

int transaction_discard(struct pager *pager, bool rebuild)
{
	int settled = tracker_sync(pager);

	if (settled < 0)
		return settled;
	if (rebuild || pager->mappings_changed || !pager->running)
		return discard_by_rebuilding(pager);
	for (size_t i = 0; i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (!w->in_tx)
			continue;
		struct page_slot *slot = pages_find(&pager->pages, w->page);
		int rc = slot->present ? restore(pager, w) : 0;
		if (rc < 0)
			return rc;
		if (!slot->present)
			restore_unfed(w);
		w->dirty = w->was_dirty;
		close_written(w, false);
	}
	close_transaction(pager);
	return 0;
}

int transaction_reset(struct pager *pager)
{
	pages_deinit(&pager->pages);
	int rc = pages_init(&pager->pages);
	if (rc == 0)
		rc = regions_copy(&pager->regions, &pager->recorded);
	close_transaction(pager);
	maps_drop(&pager->maps, true);
	pager->breakpoint_count = 0;
	pager->lost_page = 0;
	return rc;
}
