// Heaps of malloc's with words that lie: every walk ends, within its bounds.  usage: heaps [SEED [TURNS]]
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "effects/heap_refs.h"
#include "effects/heap_walk.h"
#include "kernel/uffd.h"
#include "process/vessel.h"

#define BASE 0x7f0010000000ul
#define BYTES (64ul * PAGE_BYTES)
#define LISTS 8

static uint64_t seed;

static uint64_t below(uint64_t limit)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (seed >> 20) % limit;
}

static uint64_t some_word(const uint64_t *words)
{
	switch (below(6)) {
	case 0:
		return -16ul | below(16);
	case 1:
		return below(1 << 20);
	case 2:
		return BASE + 16 * below(BYTES / 16); /* a link */
	case 3:
		return words[below(BYTES / 8)];
	case 4:
		return (BASE + 16 * below(BYTES / 16)) ^ (BASE >> 12);
	default:
		return below(BYTES) | 2; /* a mapped one */
	}
}

static void fill(uint64_t *words)
{
	uint64_t at = 0;

	memset(words, 0, BYTES);
	while (at < BYTES) {
		uint64_t size = 32 + 16 * below(60);
		if (BYTES - at < size + 32)
			size = BYTES - at;
		words[at / 8 + 1] = size | (below(8) ? 1 : 0);
		for (uint64_t i = at + 16; i + 8 <= at + size && i < at + 64; i += 8)
			words[i / 8] = below(3) ? 0 : some_word(words);
		at += size;
	}
	for (uint64_t turns = below(200); turns--;)
		words[below(BYTES / 8)] = some_word(words);
}

#define CHECK(holds) \
	do { \
		if (!(holds)) { \
			printf("%s does not hold at seed %" PRIu64 "\n", #holds, start); \
			exit(1); \
		} \
	} while (0)

static void turn(struct view *view, uint64_t start)
{
	struct heap_list lists[LISTS] = {0};
	struct heap_entries entries = {0};
	struct heap_faults faults = {0};
	struct chunks chunks = {0}, mapped = {0};
	struct heap_ref refs[64];
	uint64_t starts[4], ends[4], next, lost, stop[2], out[256];
	size_t indexes[16];

	for (uint32_t i = 1; i < LISTS; i++) {
		uint64_t head = BASE + 16 * below(BYTES / 16);
		lists[i] = (struct heap_list){.low = 32, .high = 64, .single = i % 2};
		int rc = i % 2 ? heap_list_single(view, head, 0, 16, i % 4 == 1, &entries, &lists[i], i)
			       : heap_list_double(view, head, &entries, &lists[i], i);
		CHECK(rc == 0);
		CHECK(lists[i].entries <= BYTES / 8);
	}
	heap_list_sort(&entries);
	uint64_t top = below(2) ? BASE + 16 * below(BYTES / 16) : 0;
	int rc = heap_walk(view, BASE, BASE + BYTES, top, &chunks, &faults);
	CHECK(rc >= 0);
	uint64_t end = BASE;
	for (size_t i = 0; i < chunks.count; i++) {
		CHECK(chunks.at[i].at == end);
		end += chunks.at[i].size;
		CHECK(end <= BASE + BYTES && end > chunks.at[i].at);
	}
	heap_walk_mark(view, &chunks, &entries, lists, LISTS, &faults);
	CHECK(heap_list_unmet(&entries, indexes, 16) <= 16);
	CHECK(heap_walk_mapped(view, BASE, BASE + BYTES, &mapped) == 0);
	for (size_t i = 0; i < mapped.count; i++) {
		CHECK(mapped.at[i].size <= BASE + BYTES - mapped.at[i].at);
		CHECK(!i || mapped.at[i].at >= mapped.at[i - 1].at + mapped.at[i - 1].size);
	}
	for (int i = 0; i < 4; i++) {
		starts[i] = BASE + (uint64_t)i * BYTES / 4 + 16 * below(64);
		ends[i] = starts[i] + 1 + below(100);
	}
	for (uint64_t at = BASE; at < BASE + BYTES; at = next) {
		size_t found = heap_refs_find(view, at, BASE + BYTES, starts, ends, 4, refs, 64, &next, &lost);
		CHECK(next > at && !lost);
		for (size_t i = 0; i < found; i++)
			CHECK(refs[i].value >= starts[refs[i].wanted] && refs[i].value < ends[refs[i].wanted]);
	}
	if (chunks.count) {
		/* Where a call changed nothing the chunks are listed up to `until`, and not the one there. */
		struct chunks was, is;
		uint64_t until = chunks.at[below(chunks.count)].at;
		CHECK(heap_span(view, view, BASE, until, BASE + BYTES, BASE + BYTES, &was, &is) == 0);
		CHECK(was.count == is.count);
		for (size_t i = 0; i < was.count; i++)
			CHECK(was.at[i].at < until && was.at[i].at == is.at[i].at);
		CHECK(was.broken || (was.count ? was.at[was.count - 1].at + was.at[was.count - 1].size : BASE) == until);
		heap_chunks_deinit(&was);
		heap_chunks_deinit(&is);
	}
	CHECK(heap_lists(view, BASE, 32, 0, below(2), out, 256, stop) <= 256);
	heap_list_deinit(&entries);
	heap_chunks_deinit(&chunks);
	heap_chunks_deinit(&mapped);
}

/* What begins where the walk could not go on belongs to none of the chunks before it. */
static void broken_index(uint64_t *words, struct view *view)
{
	const uint64_t start = 0, chunks = 2 * PAGE_BYTES / 64, end = BASE + chunks * 64;
	struct heap_index index;

	memset(words, 0, BYTES);
	for (uint64_t i = 0; i < chunks; i++)
		words[i * 8 + 1] = 64 | 1;
	heap_index_init(&index, BASE);
	CHECK(heap_index_find(&index, view, BASE - 16, BASE + BYTES) == 0);
	CHECK(heap_index_find(&index, view, BASE, BASE + BYTES) == BASE);
	CHECK(heap_index_find(&index, view, BASE + PAGE_BYTES + 80, BASE + BYTES) == BASE + PAGE_BYTES);
	CHECK(heap_index_find(&index, view, end - 16, BASE + BYTES) == BASE + PAGE_BYTES);
	CHECK(heap_index_find(&index, view, end, BASE + BYTES) == 0);
	CHECK(index.broken && index.next == end);
	CHECK(heap_index_find(&index, view, end - 16, BASE + BYTES) == BASE + PAGE_BYTES);
	CHECK(heap_index_find(&index, view, end + 16, BASE + BYTES) == 0);
	heap_index_deinit(&index);
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	uint64_t turns = argc > 2 ? strtoull(argv[2], NULL, 0) : 300;
	uint64_t *words = malloc(BYTES);
	struct pager pager = {0};
	struct view view;

	if (!words || pager_init(&pager) < 0 || view_init(&view) < 0)
		return 1;
	struct region region = {.start = BASE, .end = BASE + BYTES, .bytes = (const uint8_t *)words,
				.bytes_len = BYTES, .prot = 3, .kind = REGION_BYTES};
	if (regions_set(&pager.recorded, &region) < 0)
		return 1;
	view_set(&view, &pager, NULL, VIEW_RECORDED);
	broken_index(words, &view);
	for (uint64_t start = first; start < first + turns; start++) {
		seed = start * 0x9e3779b97f4a7c15ul;
		fill(words);
		view_set(&view, &pager, NULL, VIEW_RECORDED);
		turn(&view, start);
	}
	view_deinit(&view);
	pager_deinit(&pager);
	free(words);
	puts("ok");
	return 0;
}
