/* heap.h - glibc's malloc as its chunk headers tell it (malloc/malloc.c, "Chunk representations").
 *
 * A chunk at A: the word at A belongs to the chunk before unless that is free; the word at A + 8 is
 * the size with three flags; the caller's memory begins at A + 16 and ends at A + size + 8.
 * Nothing here is believed unchecked: the headers may be damaged, or none at all. */
#ifndef GDB_UFFD_HEAP_H
#define GDB_UFFD_HEAP_H

#include <stdbool.h>

#include "effects/view.h"
#include "kernel/python.h"

PYTHON enum chunk_flag { CHUNK_PREV_INUSE = 1, CHUNK_MMAPPED = 2, CHUNK_OTHER_ARENA = 4 };

PYTHON enum chunk_state {
	CHUNK_USED = 0,
	CHUNK_FREE = 1,   /* in a bin: the chunk behind it says so */
	CHUNK_LISTED = 2, /* in a list of a thread's cache or a fastbin, where it looks used */
	CHUNK_TOP = 3,    /* the rest of the heap */
	CHUNK_FENCE = 4,  /* closes a heap that does not go on */
	CHUNK_UNKNOWN = 5, /* what lies behind it is damaged */
};

PYTHON struct chunk {
	uint64_t at, size; /* without the flags */
	uint32_t state;
	uint32_t list; /* the free list that it is in, by its number; 0: none is known */
};

PYTHON struct chunks {
	struct chunk *at;
	size_t count, room;
	bool broken; /* a header that cannot be ended the walk, */
	uint64_t broken_at; /* the one there */
};

#define CHUNKS_MAX (1u << 20) /* PYTHON; of one span: 24 MiB */

PYTHON void heap_chunks_deinit(struct chunks *chunks);
/* Room for one more at the end; NULL: there is no memory. */
struct chunk *heap_chunks_append(struct chunks *chunks);

/* The chunks before and after, from `start` (a boundary in both) until both agree again at or
 * behind `until`.  `limit_*`: where the heap ends.  0; 1: more than CHUNKS_MAX; -ENOMEM. */
PYTHON int heap_span(struct view *before, struct view *after, uint64_t start, uint64_t until,
		     uint64_t limit_before, uint64_t limit_after, struct chunks *was, struct chunks *is);
/* Those at the given addresses (sorted) that look used are listed as free. */
PYTHON void heap_mark_listed(struct chunks *chunks, const uint64_t *listed, size_t count);
/* Index of the chunk that holds `address`, or -1. */
PYTHON long heap_find(const struct chunks *chunks, uint64_t address);

/* Where a heap goes on behind fenceposts that end at `at`, as it does where somebody else had moved
 * the break; 0 where it does not. */
uint64_t heap_behind_fence(struct view *view, uint64_t at, uint64_t limit);

PYTHON struct heap_totals {
	uint64_t allocated, allocated_bytes, freed, freed_bytes;
};

/* What is used after and was not before, and the reverse; one that changed its size counts as its
 * difference in bytes. */
PYTHON void heap_compare(const struct chunks *was, const struct chunks *is, struct heap_totals *totals);

/* Lists of free chunks, whose `count` heads stand in a row, one after the other; the link is at
 * `skip` behind each entry; the entries as they are linked.  `mangled`: links are protected
 * (PROTECT_PTR, since glibc 2.32).  `stop` out: of the first list that cannot go on, or is too long,
 * the last entry (0: its head) and what the link there leads to; else 0. */
PYTHON size_t heap_lists(struct view *view, uint64_t heads, size_t count, uint64_t skip, bool mangled,
			 uint64_t *out, size_t room, uint64_t stop[2]);

/* Chunk boundaries of one heap, one for each page that has any; grown on demand. */
PYTHON struct heap_index {
	uint64_t start;   /* the first chunk */
	uint64_t next;    /* where the walk goes on */
	uint16_t *first;  /* of each page from start's: offset / 16 + 1 of its first boundary, or 0 */
	size_t pages, room;
	bool broken;      /* the header at `next` cannot be */
	bool fenced;      /* the chunk before it is a fencepost */
};

#define HEAP_INDEX_MAX (1ul << 30) /* bytes of a heap that are looked through */

PYTHON void heap_index_init(struct heap_index *index, uint64_t start);
PYTHON void heap_index_deinit(struct heap_index *index);
/* A boundary at or below `address`, near it; 0 when the headers do not lead there.  `limit`: where
 * the heap ends. */
PYTHON uint64_t heap_index_find(struct heap_index *index, struct view *view, uint64_t address, uint64_t limit);
/* What lies at or above `address` may have changed. */
PYTHON void heap_index_forget(struct heap_index *index, uint64_t address);

/* Brent's way to see that a list leads back: it is compared with an entry further and further on. */
struct loop {
	uint64_t mark, steps, power;
};

#define LOOP ((struct loop){.power = 16})

static inline bool leads_back(struct loop *loop, uint64_t at)
{
	if (at == loop->mark)
		return true;
	if (++loop->steps >= loop->power) {
		loop->power *= 2;
		loop->steps = 0;
		loop->mark = at;
	}
	return false;
}

#endif
