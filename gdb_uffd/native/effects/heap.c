#include "effects/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/array.h"
#include "kernel/walk.h"

#define FLAGS 7ul
#define ALIGNMENT 16ul /* MALLOC_ALIGNMENT on x86-64 */
#define MIN_CHUNK 32ul /* MINSIZE */
#define FENCE_SIZE 16ul /* the chunks that close a heap (sysmalloc) */
#define BEHIND_CHUNKS 16 /* that must follow one another where a heap is to go on */
#define BEHIND_BYTES (1ul << 20) /* how far behind fenceposts that is looked for */

void heap_chunks_deinit(struct chunks *chunks)
{
	free(chunks->at);
	*chunks = (struct chunks){0};
}

struct chunk *heap_chunks_append(struct chunks *chunks)
{
	return array_add(*chunks);
}

/* The size word at a boundary, checked; 0 for one that cannot be. */
static uint64_t size_word(struct view *view, uint64_t at, uint64_t limit)
{
	uint64_t word, size;

	if (at + ALIGNMENT > limit || view_word(view, at + 8, &word) < 0)
		return 0;
	size = word & ~FLAGS;
	if (size % ALIGNMENT || size > limit - at || word & CHUNK_MMAPPED)
		return 0;
	return size >= MIN_CHUNK || size == FENCE_SIZE ? word : 0;
}

/* Whether chunks follow one another from `at` for some way, or to fenceposts or the heap's end. */
static bool goes_on(struct view *view, uint64_t at, uint64_t limit)
{
	for (int i = 0; i < BEHIND_CHUNKS; i++) {
		if (at == limit)
			return i > 0;
		uint64_t word = size_word(view, at, limit);
		if (!word || (!i && !(word & CHUNK_PREV_INUSE)))
			return false;
		if ((word & ~FLAGS) == FENCE_SIZE)
			return i > 0;
		at += word & ~FLAGS;
	}
	return true;
}

uint64_t heap_behind_fence(struct view *view, uint64_t at, uint64_t limit)
{
	uint64_t end = limit - at > BEHIND_BYTES ? at + BEHIND_BYTES : limit;

	for (at = (at + ALIGNMENT - 1) & -ALIGNMENT; at < end; at += ALIGNMENT)
		if (goes_on(view, at, limit))
			return at;
	return 0;
}

struct walk {
	struct view *view;
	struct chunks *chunks;
	uint64_t at, limit;
	bool done;
};

/* One chunk further; its state is that of the one before, as its own flag tells it. */
static int step(struct walk *walk)
{
	struct chunks *chunks = walk->chunks;
	uint64_t word = walk->at < walk->limit ? size_word(walk->view, walk->at, walk->limit) : 0;
	struct chunk *last = chunks->count ? &chunks->at[chunks->count - 1] : NULL;

	bool fenced = !word && last && last->state == CHUNK_FENCE; /* what follows is nobody's */
	if (fenced) {
		uint64_t next = walk->at < walk->limit
					? heap_behind_fence(walk->view, walk->at, walk->limit)
					: 0;
		if (next) {
			walk->at = next;
			return 0;
		}
		walk->limit = walk->at;
	}
	if (!word) {
		walk->done = true;
		chunks->broken = walk->at < walk->limit;
		chunks->broken_at = chunks->broken ? walk->at : 0;
		if (last && !fenced)
			last->state = chunks->broken ? CHUNK_UNKNOWN : CHUNK_TOP;
		return 0;
	}
	if (last && last->state != CHUNK_FENCE)
		last->state = word & CHUNK_PREV_INUSE ? CHUNK_USED : CHUNK_FREE;
	struct chunk *chunk = heap_chunks_append(chunks);
	if (!chunk)
		return -ENOMEM;
	uint64_t size = word & ~FLAGS;
	*chunk = (struct chunk){walk->at, size, size == FENCE_SIZE ? CHUNK_FENCE : CHUNK_UNKNOWN, 0};
	walk->at += size;
	return 0;
}

/* The state of the last chunk, from the header behind it. */
static void settle_last(struct walk *walk)
{
	struct chunks *chunks = walk->chunks;

	if (walk->done || !chunks->count || chunks->at[chunks->count - 1].state == CHUNK_FENCE)
		return;
	struct chunk *last = &chunks->at[chunks->count - 1];
	if (walk->at == walk->limit) {
		last->state = CHUNK_TOP;
		return;
	}
	uint64_t word = size_word(walk->view, walk->at, walk->limit);
	if (word)
		last->state = word & CHUNK_PREV_INUSE ? CHUNK_USED : CHUNK_FREE;
}

int heap_span(struct view *before, struct view *after, uint64_t start, uint64_t until, uint64_t limit_before,
	      uint64_t limit_after, struct chunks *was, struct chunks *is)
{
	struct walk old = {.view = before, .chunks = was, .at = start, .limit = limit_before};
	struct walk new = {.view = after, .chunks = is, .at = start, .limit = limit_after};
	int rc = 0;

	*was = *is = (struct chunks){0};
	while (rc == 0 && !(old.done && new.done)) {
		bool agree = old.at == new.at && !old.done && !new.done;
		if (agree && old.at >= until)
			break;
		if (was->count + is->count >= CHUNKS_MAX) {
			rc = 1;
			break;
		}
		rc = step(!old.done && (new.done || old.at <= new.at) ? &old : &new);
		/* A walk that ended leaves the other to go on as far as there were changes. */
		if (old.done && new.at >= until)
			break;
		if (new.done && old.at >= until)
			break;
	}
	settle_last(&old);
	settle_last(&new);
	return rc;
}

void heap_mark_listed(struct chunks *chunks, const uint64_t *listed, size_t count)
{
	size_t i = 0;

	for (size_t k = 0; k < chunks->count && i < count; k++) {
		while (i < count && listed[i] < chunks->at[k].at)
			i++;
		if (i < count && listed[i] == chunks->at[k].at && chunks->at[k].state == CHUNK_USED)
			chunks->at[k].state = CHUNK_LISTED;
	}
}

long heap_find(const struct chunks *chunks, uint64_t address)
{
	size_t low = 0, high = chunks->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (chunks->at[middle].at <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address - chunks->at[low - 1].at >= chunks->at[low - 1].size)
		return -1;
	return (long)low - 1;
}

static uint64_t usable(const struct chunk *chunk)
{
	return chunk->size - 8;
}

void heap_compare(const struct chunks *was, const struct chunks *is, struct heap_totals *totals)
{
	size_t i = 0, k = 0;

	*totals = (struct heap_totals){0};
	while (i < was->count || k < is->count) {
		const struct chunk *old = i < was->count ? &was->at[i] : NULL;
		const struct chunk *new = k < is->count ? &is->at[k] : NULL;
		if (old && new && old->at == new->at) {
			bool used = old->state == CHUNK_USED, uses = new->state == CHUNK_USED;
			if (used && uses && new->size > old->size)
				totals->allocated_bytes += new->size - old->size;
			else if (used && uses)
				totals->freed_bytes += old->size - new->size;
			if (uses && !used) {
				totals->allocated++;
				totals->allocated_bytes += usable(new);
			}
			/* What lies behind a damaged header is not known, so nothing is said of it. */
			if (used && !uses && new->state != CHUNK_UNKNOWN) {
				totals->freed++;
				totals->freed_bytes += usable(old);
			}
			i++;
			k++;
		} else if (old && (!new || old->at < new->at)) {
			if (old->state == CHUNK_USED && !(is->broken && !new)) {
				totals->freed++;
				totals->freed_bytes += usable(old);
			}
			i++;
		} else {
			if (new->state == CHUNK_USED) {
				totals->allocated++;
				totals->allocated_bytes += usable(new);
			}
			k++;
		}
	}
}

static size_t list(struct view *view, uint64_t head, uint64_t skip, bool mangled, uint64_t *out, size_t room,
		   uint64_t stop[2])
{
	uint64_t at = head, before = 0, stored;
	struct loop loop = LOOP;
	size_t count = 0;

	while (at && count < room) {
		if (at % ALIGNMENT || view_word(view, at + skip, &stored) < 0 || leads_back(&loop, at)) {
			if (!stop[0] && !stop[1]) {
				stop[0] = before;
				stop[1] = at;
			}
			break;
		}
		out[count++] = before = at;
		at = mangled ? stored ^ (at + skip) >> 12 : stored;
	}
	return count;
}

size_t heap_lists(struct view *view, uint64_t heads, size_t count, uint64_t skip, bool mangled, uint64_t *out,
		  size_t room, uint64_t stop[2])
{
	size_t found = 0;
	uint64_t head;

	stop[0] = stop[1] = 0;
	for (size_t i = 0; i < count; i++)
		if (view_word(view, heads + 8 * i, &head) == 0)
			found += list(view, head, skip, mangled, out + found, room - found, stop);
	return found;
}

void heap_index_init(struct heap_index *index, uint64_t start)
{
	*index = (struct heap_index){.start = start, .next = start};
}

void heap_index_deinit(struct heap_index *index)
{
	free(index->first);
	*index = (struct heap_index){0};
}

static size_t page_number(const struct heap_index *index, uint64_t address)
{
	return (size_t)(address / PAGE_BYTES - index->start / PAGE_BYTES);
}

static int note_boundary(struct heap_index *index, uint64_t at)
{
	size_t page = page_number(index, at);

	if (page >= index->room) {
		size_t had = index->room;
		uint16_t *first = array_grown(index->first, had, &index->room, page + 1 - had, sizeof(*first));
		if (!first)
			return -ENOMEM;
		memset(first + had, 0, (index->room - had) * sizeof(*first));
		index->first = first;
	}
	if (page >= index->pages)
		index->pages = page + 1;
	if (!index->first[page])
		index->first[page] = (uint16_t)(at % PAGE_BYTES / ALIGNMENT + 1);
	return 0;
}

static void extend(struct heap_index *index, struct view *view, uint64_t until, uint64_t limit)
{
	if (limit > index->start + HEAP_INDEX_MAX)
		limit = index->start + HEAP_INDEX_MAX;
	while (!index->broken && index->next <= until && index->next < limit) {
		uint64_t word = size_word(view, index->next, limit);
		uint64_t behind = word || !index->fenced ? 0 : heap_behind_fence(view, index->next, limit);
		if (behind) {
			index->next = behind;
			index->fenced = false;
			continue;
		}
		if (!word || note_boundary(index, index->next) < 0) {
			index->broken = true;
			return;
		}
		index->next += word & ~FLAGS;
		index->fenced = (word & ~FLAGS) == FENCE_SIZE;
	}
}

uint64_t heap_index_find(struct heap_index *index, struct view *view, uint64_t address, uint64_t limit)
{
	if (address < index->start || index->start % ALIGNMENT)
		return 0;
	extend(index, view, address, limit);
	size_t page = page_number(index, address);
	if (page >= index->pages)
		page = index->pages;
	else
		page++;
	while (page--) {
		if (!index->first[page])
			continue;
		uint64_t base = (index->start & ~(PAGE_BYTES - 1)) + page * PAGE_BYTES;
		uint64_t at = base + (uint64_t)(index->first[page] - 1) * ALIGNMENT;
		if (at <= address)
			return index->broken && index->next <= address ? 0 : at;
	}
	return 0;
}

void heap_index_forget(struct heap_index *index, uint64_t address)
{
	if (address >= index->next || !index->pages)
		return;
	size_t page = address < index->start ? 0 : page_number(index, address);
	/* The walk goes on from the last boundary below that page; a chunk may reach into it. */
	uint64_t next = index->start;
	for (size_t i = page; i-- > 0;) {
		if (i < index->pages && index->first[i]) {
			next = (index->start & ~(PAGE_BYTES - 1)) + i * PAGE_BYTES +
			       (uint64_t)(index->first[i] - 1) * ALIGNMENT;
			break;
		}
	}
	if (page < index->pages) {
		memset(index->first + page, 0, (index->pages - page) * sizeof(*index->first));
		index->pages = page;
	}
	index->next = next;
	index->broken = index->fenced = false;
}
