#include "table/regions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel/array.h"

const uint8_t zero_page[4096] __attribute__((aligned(4096)));

void regions_deinit(struct regions *regions)
{
	free(regions->at);
	*regions = (struct regions){0};
}

static void note_code(struct regions *regions)
{
	static uint64_t last; /* of all tables: one takes another's place */

	regions->code = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

int regions_copy(struct regions *to, const struct regions *from)
{
	struct region *at = array_grown(to->at, 0, &to->room, from->count, sizeof(*at));

	if (!at)
		return -ENOMEM;
	to->at = at;
	if (from->count)
		memcpy(to->at, from->at, from->count * sizeof(*to->at));
	to->count = from->count;
	to->code = from->code;
	return 0;
}

/* Index of the first region that ends after `address`. */
static size_t first_ending_after(const struct regions *regions, uint64_t address)
{
	size_t low = 0, high = regions->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (regions->at[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct region *regions_find(const struct regions *regions, uint64_t address)
{
	size_t index = first_ending_after(regions, address);

	if (index == regions->count || regions->at[index].start > address)
		return NULL;
	return &regions->at[index];
}

const struct region *regions_next(const struct regions *regions, uint64_t address)
{
	size_t index = first_ending_after(regions, address);

	return index < regions->count ? &regions->at[index] : NULL;
}

uint64_t regions_unbroken(const struct regions *regions, uint64_t start, uint64_t end)
{
	while (start < end) {
		const struct region *region = regions_find(regions, start);
		if (!region)
			return start;
		start = region->end;
	}
	return end;
}

/* The part of `region` from `start` on. */
static struct region tail_of(const struct region *region, uint64_t start)
{
	struct region tail = *region;
	uint64_t skipped = start - region->start;

	tail.start = start;
	if (tail.bytes) {
		tail.bytes = skipped < tail.bytes_len ? tail.bytes + skipped : NULL;
		tail.bytes_len = skipped < tail.bytes_len ? tail.bytes_len - skipped : 0;
	}
	if (tail.slots)
		tail.slots += skipped / 4096;
	return tail;
}

/* Splits the region over `address`, if any, so that a border lies there; room was reserved. */
static void split_at(struct regions *regions, uint64_t address)
{
	size_t index = first_ending_after(regions, address);

	if (index == regions->count || regions->at[index].start >= address)
		return;
	struct region *left = &regions->at[index];
	struct region right = tail_of(left, address);
	memmove(left + 2, left + 1, (regions->count - index - 1) * sizeof(*left));
	left->end = address;
	left[1] = right;
	regions->count++;
}

int regions_clear(struct regions *regions, uint64_t start, uint64_t end)
{
	int rc = array_reserve(*regions, 2);

	if (rc < 0)
		return rc;
	split_at(regions, start);
	split_at(regions, end);
	size_t from = first_ending_after(regions, start), to = from;
	for (; to < regions->count && regions->at[to].start < end; to++)
		if (regions->at[to].prot & PROT_EXEC)
			note_code(regions);
	memmove(regions->at + from, regions->at + to, (regions->count - to) * sizeof(*regions->at));
	regions->count -= to - from;
	return 0;
}

int regions_set(struct regions *regions, const struct region *region)
{
	int rc = array_reserve(*regions, 3);

	if (rc < 0)
		return rc;
	regions_clear(regions, region->start, region->end);
	size_t index = first_ending_after(regions, region->start);
	struct region *at = regions->at + index;
	memmove(at + 1, at, (regions->count - index) * sizeof(*at));
	*at = *region;
	regions->count++;
	if (region->prot & PROT_EXEC)
		note_code(regions);
	return 0;
}

int regions_protect(struct regions *regions, uint64_t start, uint64_t end, int prot)
{
	int rc = array_reserve(*regions, 2);

	if (rc < 0)
		return rc;
	split_at(regions, start);
	split_at(regions, end);
	for (size_t i = first_ending_after(regions, start);
	     i < regions->count && regions->at[i].start < end; i++) {
		if ((regions->at[i].prot | prot) & PROT_EXEC)
			note_code(regions);
		regions->at[i].prot = prot;
	}
	return 0;
}

const uint8_t *region_page(const struct region *region, uint64_t page, uint8_t *scratch)
{
	uint64_t skipped = page - region->start;

	if (region->kind != REGION_BYTES || skipped >= region->bytes_len)
		return zero_page;
	uint64_t left = region->bytes_len - skipped;
	if (left >= 4096)
		return region->bytes + skipped;
	/* The last page of a file: the rest reads as zeros (mmap(2)). */
	memcpy(scratch, region->bytes + skipped, left);
	memset(scratch + left, 0, 4096 - left);
	return scratch;
}
