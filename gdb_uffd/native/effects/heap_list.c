#include "effects/heap_list.h"

#include <errno.h>
#include <stdlib.h>

#include "effects/heap.h"
#include "kernel/array.h"

#define ALIGNMENT 16ul /* MALLOC_ALIGNMENT on 64-bit */
#define FD 16ul        /* malloc_chunk.fd, .bk */
#define BK 24ul

void heap_list_deinit(struct heap_entries *entries)
{
	free(entries->at);
	*entries = (struct heap_entries){0};
}

static int by_address(const void *left, const void *right)
{
	const struct heap_entry *a = left, *b = right;

	if (a->at != b->at)
		return a->at < b->at ? -1 : 1;
	return a->list < b->list ? -1 : a->list > b->list;
}

void heap_list_sort(struct heap_entries *entries)
{
	if (entries->count)
		qsort(entries->at, entries->count, sizeof(*entries->at), by_address);
}

size_t heap_list_unmet(const struct heap_entries *entries, size_t *indexes, size_t room)
{
	size_t found = 0;

	for (size_t i = 0; i < entries->count && found < room; i++)
		if (!entries->at[i].met)
			indexes[found++] = i;
	return found;
}

/* 1: no more are taken. */
static int append(struct heap_entries *entries, uint64_t at, uint32_t list)
{
	if (entries->count >= LIST_ENTRIES_MAX)
		return 1;
	struct heap_entry *made = array_add(*entries);
	if (!made)
		return -ENOMEM;
	*made = (struct heap_entry){at, list, false};
	return 0;
}

static void stop(struct heap_list *list, enum heap_list_end end, uint64_t at, uint64_t link)
{
	list->end = end;
	list->end_at = at;
	list->link = link;
}

/* Some entries of a loop were met twice by the time that it is seen. */
static void once_each(struct heap_entries *entries, size_t from)
{
	size_t kept = from;

	qsort(entries->at + from, entries->count - from, sizeof(*entries->at), by_address);
	for (size_t i = from; i < entries->count; i++)
		if (kept == from || entries->at[i].at != entries->at[kept - 1].at)
			entries->at[kept++] = entries->at[i];
	entries->count = kept;
}

int heap_list_single(struct view *view, uint64_t head, uint64_t skip, uint64_t back, bool mangled,
		     struct heap_entries *entries, struct heap_list *list, uint32_t number)
{
	struct loop loop = LOOP;
	uint64_t at = head, link = head, before = 0;
	size_t from = entries->count;

	while (at) {
		uint64_t stored;
		if (at % ALIGNMENT) {
			stop(list, LIST_UNALIGNED, before, link);
			break;
		}
		if (view_word(view, at + skip, &stored) < 0) {
			stop(list, LIST_UNREADABLE, before, link);
			break;
		}
		if (leads_back(&loop, at)) {
			once_each(entries, from);
			stop(list, LIST_LOOP, before, link);
			break;
		}
		int rc = append(entries, at - back, number);
		if (rc < 0)
			return rc;
		if (rc) {
			stop(list, LIST_FULL, at - back, 0);
			break;
		}
		before = at - back;
		link = mangled ? stored ^ (at + skip) >> 12 : stored;
		at = link;
	}
	list->entries = entries->count - from;
	return 0;
}

int heap_list_double(struct view *view, uint64_t bin, struct heap_entries *entries, struct heap_list *list,
		     uint32_t number)
{
	struct loop loop = LOOP;
	uint64_t at, before = bin, back;
	size_t from = entries->count;

	if (view_word(view, bin + FD, &at) < 0) {
		stop(list, LIST_UNREADABLE, 0, bin);
		return 0;
	}
	while (at != bin) {
		uint64_t told = before == bin ? 0 : before, next;
		if (at % ALIGNMENT) {
			stop(list, LIST_UNALIGNED, told, at);
			break;
		}
		if (view_word(view, at + FD, &next) < 0 || view_word(view, at + BK, &back) < 0) {
			stop(list, LIST_UNREADABLE, told, at);
			break;
		}
		if (leads_back(&loop, at)) {
			once_each(entries, from);
			stop(list, LIST_LOOP, told, at);
			break;
		}
		if (back != before && list->end == LIST_WHOLE)
			stop(list, LIST_BACK, at, back);
		int rc = append(entries, at, number);
		if (rc < 0)
			return rc;
		if (rc) {
			stop(list, LIST_FULL, at, 0);
			break;
		}
		before = at;
		at = next;
	}
	list->entries = entries->count - from;
	return 0;
}
