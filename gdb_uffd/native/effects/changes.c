/* changes.c - what can be asked of two images of a page, and of two lists of changes. */
#include "effects/changes.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/uffd.h"

static void free_images(struct change *at, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(at[i].before);
		free(at[i].old);
		free(at[i].after);
	}
	free(at);
}

void changes_deinit(struct changes *changes)
{
	free_images(changes->at, changes->count);
	free_images(changes->gone, changes->gone_count);
	regions_deinit(&changes->was);
	regions_deinit(&changes->is);
	*changes = (struct changes){0};
}

uint32_t changes_count(const uint8_t *before, const uint8_t *after, size_t len)
{
	uint32_t count = 0;

	if (memcmp(before, after, len) == 0)
		return 0;
	for (size_t i = 0; i < len; i++)
		count += before[i] != after[i];
	return count;
}

static const struct change *next_by(const struct changes *changes, size_t *i, int writers)
{
	while (*i < changes->count && !(changes->at[*i].writers & writers))
		++*i;
	return *i < changes->count ? &changes->at[*i] : NULL;
}

static bool same_outcome(const struct change *left, const struct change *right)
{
	if (left->bytes_changed != right->bytes_changed)
		return false;
	return !left->after || !right->after || memcmp(left->after, right->after, PAGE_BYTES) == 0;
}

size_t changes_differ(const struct changes *left, const struct changes *right, int writers, uint64_t *first)
{
	size_t i = 0, j = 0, count = 0;

	for (;;) {
		const struct change *a = next_by(left, &i, writers), *b = next_by(right, &j, writers);
		if (!a && !b)
			return count;
		bool both = a && b && a->page == b->page;
		uint64_t page = a && (!b || a->page <= b->page) ? a->page : b->page;
		const struct change *one = a && a->page == page ? a : b;
		/* A page that only one run wrote, with what it held, came out the same. */
		if (both ? !same_outcome(a, b) : one->bytes_changed != 0) {
			if (!count)
				*first = page;
			count++;
		}
		i += a && a->page == page;
		j += b && b->page == page;
	}
}

size_t changes_runs(const uint8_t *before, const uint8_t *after, size_t gap, uint16_t *runs, size_t room)
{
	size_t count = 0, last_end = 0;

	for (size_t i = 0; i < PAGE_BYTES;) {
		if (before[i] == after[i]) {
			i++;
			continue;
		}
		size_t start = i;
		while (i < PAGE_BYTES && before[i] != after[i])
			i++;
		if (count && start - last_end <= gap) {
			if (count <= room)
				runs[2 * (count - 1) + 1] = (uint16_t)(i - runs[2 * (count - 1)]);
		} else {
			if (count < room) {
				runs[2 * count] = (uint16_t)start;
				runs[2 * count + 1] = (uint16_t)(i - start);
			}
			count++;
		}
		last_end = i;
	}
	return count;
}
