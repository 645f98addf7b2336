#include "effects/heap_walk.h"

#include <errno.h>

#define FLAGS 7ul
#define ALIGNMENT 16ul /* MALLOC_ALIGNMENT on 64-bit */
#define MIN_CHUNK 32ul /* MINSIZE */
#define FENCE_SIZE 16ul
#define HEADER 16ul /* CHUNK_HDR_SZ */
#define ALIGNMENT_MAX (64ul << 20) /* of mapped chunks that are looked for */

static void tell(struct heap_faults *faults, enum heap_flaw flaw, uint64_t at, uint64_t value, uint64_t other,
		 uint32_t list)
{
	if (faults->count < FAULTS_MAX)
		faults->at[faults->count] = (struct heap_fault){at, value, other, flaw, list};
	faults->count++;
}

/* What is wrong with the size at a boundary below `limit`; 0: nothing. */
static int flaw_of(uint64_t word, uint64_t at, uint64_t limit)
{
	uint64_t size = word & ~FLAGS;

	if (size % ALIGNMENT)
		return FLAW_ALIGNMENT;
	if (size < MIN_CHUNK && size != FENCE_SIZE)
		return FLAW_SMALL;
	if (size > limit - at)
		return FLAW_BEYOND;
	return word & CHUNK_MMAPPED ? FLAW_MMAPPED : 0;
}

static int broken(struct chunks *chunks, struct heap_faults *faults, enum heap_flaw flaw, uint64_t at,
		  uint64_t word, uint64_t limit)
{
	tell(faults, flaw, at, word, limit, 0);
	chunks->broken = true;
	chunks->broken_at = at;
	return WALK_BROKEN;
}

/* The state of the chunk before, as the size word behind it tells it. */
static void settle(struct view *view, struct chunk *last, uint64_t word, struct heap_faults *faults)
{
	uint64_t size;

	if (last->state != CHUNK_UNKNOWN)
		return;
	last->state = word & CHUNK_PREV_INUSE ? CHUNK_USED : CHUNK_FREE;
	if (last->state == CHUNK_FREE && view_word(view, last->at + last->size, &size) == 0 &&
	    size != last->size)
		tell(faults, FLAW_PREV_SIZE, last->at, last->size, size, 0);
}

int heap_walk(struct view *view, uint64_t start, uint64_t limit, uint64_t top, struct chunks *chunks,
	      struct heap_faults *faults)
{
	uint64_t at = start, word;
	size_t first = chunks->count;

	chunks->broken = false;
	while (at < limit && limit - at >= ALIGNMENT) {
		struct chunk *last = chunks->count > first ? &chunks->at[chunks->count - 1] : NULL;
		uint64_t end = at < top && top < limit ? top : limit;
		bool fenced = last && last->state == CHUNK_FENCE;
		if (view_word(view, at + 8, &word) < 0)
			return broken(chunks, faults, FLAW_UNREADABLE, at, 0, end);
		int flaw = flaw_of(word, at, end);
		if (fenced && (flaw || at == limit - FENCE_SIZE)) {
			uint64_t next = heap_behind_fence(view, at, limit);
			if (!next) {
				chunks->broken_at = at;
				return WALK_FENCED;
			}
			if (next > at) {
				at = next;
				continue;
			}
		}
		if (at == top && flaw == FLAW_BEYOND) {
			tell(faults, FLAW_TOP, at, word, limit, 0);
			word = (limit - at) | (word & FLAGS);
		} else if (flaw) {
			return broken(chunks, faults, flaw, at, word, end);
		}
		if (last)
			settle(view, last, word, faults);
		if (chunks->count >= WALK_CHUNKS_MAX)
			return WALK_FULL;
		struct chunk *chunk = heap_chunks_append(chunks);
		if (!chunk)
			return -ENOMEM;
		uint64_t size = word & ~FLAGS;
		*chunk = (struct chunk){at, size, size == FENCE_SIZE ? CHUNK_FENCE : CHUNK_UNKNOWN, 0};
		if (at == top || (!top && at + size == limit)) {
			if (at + size != limit)
				tell(faults, FLAW_TOP, at, word, limit, 0);
			chunk->state = CHUNK_TOP;
			return WALK_WHOLE;
		}
		at += size;
	}
	return WALK_WHOLE;
}

static void mark(struct view *view, struct chunk *chunk, struct heap_entry *entry, struct heap_list *list,
		 struct heap_faults *faults)
{
	uint64_t word = chunk->size;

	if (chunk->list) {
		tell(faults, FLAW_TWICE, chunk->at, chunk->size, chunk->list, entry->list);
		return;
	}
	view_word(view, chunk->at + 8, &word);
	if (!list->single && chunk->state != CHUNK_FREE)
		tell(faults, FLAW_IN_USE, chunk->at, word, 0, entry->list);
	if (chunk->size < list->low || chunk->size >= list->high)
		tell(faults, FLAW_LIST_SIZE, chunk->at, word, 0, entry->list);
	chunk->list = entry->list;
	if (chunk->state != CHUNK_FREE)
		chunk->state = CHUNK_LISTED;
	list->blocks++;
	list->bytes += chunk->size;
}

void heap_walk_mark(struct view *view, struct chunks *chunks, struct heap_entries *entries,
		    struct heap_list *lists, size_t list_count, struct heap_faults *faults)
{
	size_t i = 0;

	for (size_t k = 0; k < chunks->count; k++) {
		struct chunk *chunk = &chunks->at[k];
		while (i < entries->count && entries->at[i].at < chunk->at)
			i++;
		for (; i < entries->count && entries->at[i].at < chunk->at + chunk->size; i++) {
			struct heap_entry *entry = &entries->at[i];
			entry->met = true;
			if (entry->list >= list_count)
				continue;
			if (entry->at == chunk->at)
				mark(view, chunk, entry, &lists[entry->list], faults);
			else
				tell(faults, FLAW_NOT_A_BLOCK, entry->at, chunk->at, chunk->size,
				     entry->list);
		}
		if (chunk->state == CHUNK_FREE && !chunk->list)
			tell(faults, FLAW_UNLISTED, chunk->at, chunk->size, 0, 0);
	}
}

void heap_walk_count(const struct chunks *chunks, struct heap_count *count)
{
	*count = (struct heap_count){0};
	for (size_t k = 0; k < chunks->count; k++) {
		const struct chunk *chunk = &chunks->at[k];
		size_t state = chunk->state % 8;
		count->blocks[state]++;
		count->bytes[state] += chunk->size;
		if (state == CHUNK_USED && chunk->size > count->largest)
			count->largest = chunk->size;
	}
}

/* Whether a chunk with a mapping of its own, which begins at `start`, is at `at`: its prev_size is
 * the room between (_int_memalign), and the mapping ends with it.  Since 2.43 the size that stands
 * there is less by the header's.  What it takes of the mapping, or 0. */
static uint64_t mapped_size(struct view *view, uint64_t start, uint64_t at, uint64_t high)
{
	uint64_t before, word;

	if (view_word(view, at, &before) < 0 || before != at - start)
		return 0;
	if (view_word(view, at + 8, &word) < 0 || (word & FLAGS) != CHUNK_MMAPPED)
		return 0;
	uint64_t size = word & ~FLAGS;
	if ((before + size) % PAGE_BYTES)
		size += HEADER;
	if (size < MIN_CHUNK || size > high - at || (before + size) % PAGE_BYTES)
		return 0;
	return size;
}

/* The chunk of the mapping at `start`, to which an aligned one leaves an older header: of those that
 * end at one place the last.  `far`: alignments beyond a page are looked for, too. */
static struct chunk mapped_chunk(struct view *view, uint64_t start, uint64_t high, bool far)
{
	uint64_t most = far ? ALIGNMENT_MAX : PAGE_BYTES, size = mapped_size(view, start, start, high);
	struct chunk found = {start, size, CHUNK_USED, 0};

	for (uint64_t alignment = 2 * ALIGNMENT; alignment <= most; alignment *= 2) {
		uint64_t at = ((start + 2 * ALIGNMENT - 1) & -alignment) + alignment - HEADER;
		for (int i = 0; i < 2 && at < high; i++, at += alignment) {
			if (at <= found.at || (found.size && at >= found.at + found.size))
				continue;
			size = mapped_size(view, start, at, high);
			if (size && (!found.size || at + size == found.at + found.size))
				found = (struct chunk){at, size, CHUNK_USED, 0};
		}
	}
	return found;
}

int heap_walk_mapped(struct view *view, uint64_t low, uint64_t high, struct chunks *chunks)
{
	bool follows = true; /* the mapping begins here, or a chunk ended */

	for (uint64_t at = low; at < high;) {
		struct chunk found = mapped_chunk(view, at, high, follows);
		follows = found.size > 0;
		at = follows ? found.at + found.size : at + PAGE_BYTES;
		if (!follows)
			continue;
		struct chunk *chunk = chunks->count < WALK_CHUNKS_MAX ? heap_chunks_append(chunks) : NULL;
		if (!chunk)
			return -ENOMEM;
		*chunk = found;
	}
	return 0;
}
