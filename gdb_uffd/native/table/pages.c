#include "table/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/array.h"

#define FIRST_SLOTS 4096

int pages_init(struct pages *pages)
{
	*pages = (struct pages){0};
	pages->slots = calloc(FIRST_SLOTS, sizeof(*pages->slots));
	if (!pages->slots)
		return -ENOMEM;
	pages->slot_mask = FIRST_SLOTS - 1;
	return 0;
}

void pages_deinit(struct pages *pages)
{
	for (size_t i = 0; i < pages->written_count; i++) {
		free(pages->written[i].before);
		free(pages->written[i].after_malloc);
		free(pages->written[i].origin);
		free(pages->written[i].overlay);
		free(pages->written[i].seen);
		free(pages->written[i].callers);
	}
	free(pages->written);
	free(pages->slots);
	*pages = (struct pages){0};
}

static size_t hash_page(uint64_t page)
{
	return (size_t)((page >> 12) * 0x9e3779b97f4a7c15ull >> 20);
}

static struct page_slot *probe(const struct pages *pages, uint64_t page)
{
	size_t i = hash_page(page) & pages->slot_mask;

	while (pages->slots[i].page && pages->slots[i].page != page)
		i = (i + 1) & pages->slot_mask;
	return &pages->slots[i];
}

struct page_slot *pages_find(const struct pages *pages, uint64_t page)
{
	struct page_slot *slot = probe(pages, page);

	return slot->page ? slot : NULL;
}

static int grow(struct pages *pages)
{
	struct pages larger = *pages;
	size_t slots = (pages->slot_mask + 1) * 2;

	larger.slots = calloc(slots, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	larger.slot_mask = slots - 1;
	for (size_t i = 0; i <= pages->slot_mask; i++)
		if (pages->slots[i].page)
			*probe(&larger, pages->slots[i].page) = pages->slots[i];
	free(pages->slots);
	*pages = larger;
	return 0;
}

struct page_slot *pages_get(struct pages *pages, uint64_t page)
{
	struct page_slot *slot = probe(pages, page);

	if (slot->page)
		return slot;
	if (pages->used * 2 > pages->slot_mask) {
		if (grow(pages) < 0)
			return NULL;
		slot = probe(pages, page);
	}
	pages->used++;
	slot->page = page;
	return slot;
}

struct written *pages_written(const struct pages *pages, uint64_t page)
{
	struct page_slot *slot = pages_find(pages, page);

	return slot && slot->written ? &pages->written[slot->written - 1] : NULL;
}

struct written *pages_make_written(struct pages *pages, uint64_t page)
{
	struct page_slot *slot = pages_get(pages, page);

	if (!slot)
		return NULL;
	if (slot->written)
		return &pages->written[slot->written - 1];
	struct written *written = array_grown(pages->written, pages->written_count, &pages->written_room, 1, sizeof(*written));
	if (!written)
		return NULL;
	pages->written = written;
	struct written *made = &pages->written[pages->written_count++];
	*made = (struct written){.page = page};
	slot->written = (uint32_t)pages->written_count;
	return made;
}

size_t pages_count_dirty(const struct pages *pages)
{
	size_t count = 0;

	for (size_t i = 0; i < pages->written_count; i++)
		count += pages->written[i].dirty;
	return count;
}

static void set_absent(struct pages *pages, struct page_slot *slot)
{
	pages->grown -= slot->grown;
	slot->present = slot->grown = slot->shared = false;
}

void pages_set_present(struct pages *pages, struct page_slot *slot, bool grown)
{
	set_absent(pages, slot);
	slot->present = true;
	slot->grown = grown;
	pages->grown += grown;
}

void pages_set_shared(struct pages *pages, struct page_slot *slot)
{
	pages_set_present(pages, slot, false);
	slot->shared = true;
}

void pages_set_own(struct pages *pages, struct page_slot *slot)
{
	if (slot && slot->shared)
		pages_set_present(pages, slot, true);
}

void pages_forget_present(struct pages *pages)
{
	for (size_t i = 0; i <= pages->slot_mask; i++)
		set_absent(pages, &pages->slots[i]);
}

static void forget(struct pages *pages, struct page_slot *slot, bool other)
{
	set_absent(pages, slot);
	if (!slot->written)
		return;
	struct written *w = &pages->written[slot->written - 1];
	free(w->overlay);
	free(w->seen);
	free(w->origin);
	w->overlay = w->seen = w->origin = NULL;
	w->armed = false;
	if (other) {
		free(w->origin);
		w->origin = NULL;
	}
}

void pages_forget_range(struct pages *pages, uint64_t start, uint64_t end, bool other)
{
	if ((end - start) >> 12 > pages->slot_mask) {
		for (size_t i = 0; i <= pages->slot_mask; i++)
			if (pages->slots[i].page >= start && pages->slots[i].page < end)
				forget(pages, &pages->slots[i], other);
		return;
	}
	for (uint64_t page = start; page < end; page += 4096) {
		struct page_slot *slot = pages_find(pages, page);
		if (slot)
			forget(pages, slot, other);
	}
}
