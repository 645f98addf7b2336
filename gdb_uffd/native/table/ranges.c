#include "table/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/array.h"

void ranges_deinit(struct ranges *ranges)
{
	free(ranges->at);
	memset(ranges, 0, sizeof(*ranges));
}

int ranges_reserve(struct ranges *ranges, size_t more)
{
	return array_reserve(*ranges, more);
}

int ranges_add(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t categories)
{
	struct page_range *made = array_add(*ranges);

	if (!made)
		return -ENOMEM;
	*made = (struct page_range){start, end, categories};
	return 0;
}

size_t ranges_after(const struct ranges *ranges, uint64_t address)
{
	size_t low = 0, high = ranges->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (ranges->at[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int ranges_subtract(struct ranges *out, const struct ranges *from, const struct ranges *less, uint64_t start,
		    uint64_t end)
{
	size_t j = ranges_after(less, start);

	for (size_t i = ranges_after(from, start); i < from->count && from->at[i].start < end; i++) {
		uint64_t at = from->at[i].start > start ? from->at[i].start : start;
		uint64_t stop = from->at[i].end < end ? from->at[i].end : end;

		while (at < stop) {
			while (j < less->count && less->at[j].end <= at)
				j++;
			uint64_t gap = j < less->count ? less->at[j].start : end;
			if (gap > at) {
				uint64_t upto = gap < stop ? gap : stop;
				int rc = ranges_add(out, at, upto, 0);
				if (rc < 0)
					return rc;
				at = upto;
			} else {
				at = less->at[j].end;
			}
		}
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct page_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

void ranges_join(struct ranges *ranges, size_t first)
{
	size_t kept = first;

	if (ranges->count - first < 2)
		return;
	qsort(ranges->at + first, ranges->count - first, sizeof(*ranges->at), by_start);
	for (size_t i = first + 1; i < ranges->count; i++) {
		struct page_range *last = &ranges->at[kept], *next = &ranges->at[i];
		if (next->start <= last->end && next->categories == last->categories)
			last->end = next->end > last->end ? next->end : last->end;
		else
			ranges->at[++kept] = *next;
	}
	ranges->count = kept + 1;
}
