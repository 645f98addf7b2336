/* heap_walk.h - all chunks of one heap of glibc's malloc in one state of memory, and what cannot be
 * of them (malloc/malloc.c, "Chunk representations").  Nothing here is believed unchecked. */
#ifndef GDB_UFFD_HEAP_WALK_H
#define GDB_UFFD_HEAP_WALK_H

#include "effects/heap.h"
#include "effects/heap_list.h"
#include "kernel/python.h"

PYTHON enum heap_flaw {
	FLAW_UNREADABLE = 1, /* the header lies on a page that cannot be had */
	FLAW_ALIGNMENT = 2,  /* the size is no multiple of 16 */
	FLAW_SMALL = 3,      /* below MINSIZE */
	FLAW_BEYOND = 4,     /* ends behind `other`, where the heap, or its top, does */
	FLAW_MMAPPED = 5,    /* marked as one with a mapping of its own */
	FLAW_PREV_SIZE = 6,  /* free, and the size behind it (`other`) is another */
	FLAW_TOP = 7,        /* the top chunk does not end with the heap, `other` */
	FLAW_NOT_A_BLOCK = 8, /* an entry of a list where no chunk begins */
	FLAW_IN_USE = 9,     /* in a bin, and the chunk behind it says that it is in use */
	FLAW_LIST_SIZE = 10, /* in the list of other sizes */
	FLAW_TWICE = 11,     /* in two lists, or twice in one; `other`: the other list */
	FLAW_UNLISTED = 12,  /* free, and in no list */
};

PYTHON struct heap_fault {
	uint64_t at, value, other; /* the chunk, its size word, and see above */
	uint32_t flaw, list;
};

#define FAULTS_MAX 64 /* PYTHON */

PYTHON struct heap_faults {
	struct heap_fault at[FAULTS_MAX];
	size_t count; /* how many there are, those that have no room included */
};

PYTHON enum heap_walked { WALK_WHOLE = 0, WALK_BROKEN = 1, WALK_FENCED = 2, WALK_FULL = 3 };

#define WALK_CHUNKS_MAX (1ul << 24) /* PYTHON */

/* The chunks from `start`, a boundary, to `limit`, the end of the heap, are added to `chunks`;
 * `top`: the heap's last chunk, 0 where none is.  WALK_BROKEN: a header that cannot be, told in
 * `faults`, is at `chunks->broken_at`; WALK_FENCED: fenceposts end the heap there (sysmalloc).
 * -ENOMEM. */
PYTHON int heap_walk(struct view *view, uint64_t start, uint64_t limit, uint64_t top, struct chunks *chunks,
		     struct heap_faults *faults);
/* What is known to lie in free lists is marked in `chunks`, and counted in `lists`, by which the
 * numbers in `entries` (sorted) are indexes. */
PYTHON void heap_walk_mark(struct view *view, struct chunks *chunks, struct heap_entries *entries,
			   struct heap_list *lists, size_t list_count, struct heap_faults *faults);

PYTHON struct heap_count {
	uint64_t blocks[8], bytes[8]; /* by enum chunk_state; bytes are those of the chunks */
	uint64_t largest; /* the largest chunk in use */
};

PYTHON void heap_walk_count(const struct chunks *chunks, struct heap_count *count);
/* Chunks with mappings of their own in [low, high), anonymous memory: added to `chunks`.  -ENOMEM. */
PYTHON int heap_walk_mapped(struct view *view, uint64_t low, uint64_t high, struct chunks *chunks);

#endif
