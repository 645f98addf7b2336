/* heap_list.h - free lists of glibc's malloc, followed entry by entry. */
#ifndef GDB_UFFD_HEAP_LIST_H
#define GDB_UFFD_HEAP_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "effects/view.h"
#include "kernel/python.h"

PYTHON enum heap_list_end {
	LIST_WHOLE = 0,
	LIST_UNALIGNED = 1,  /* a link is no multiple of 16 */
	LIST_UNREADABLE = 2, /* a link leads to where nothing is */
	LIST_LOOP = 3,       /* a link leads back */
	LIST_BACK = 4,       /* the link back is not to the entry before */
	LIST_FULL = 5,       /* more than LIST_ENTRIES_MAX in all */
};

/* One list: what is in it, as far as it leads.  Sizes are of chunks: [low, high). */
PYTHON struct heap_list {
	uint64_t low, high;
	bool single;             /* a list of a thread's cache or a fastbin, where a chunk looks used */
	uint32_t end;            /* enum heap_list_end */
	uint64_t end_at;         /* the chunk whose link cannot be followed; 0: the head */
	uint64_t link;           /* that link; of LIST_BACK the one back */
	uint64_t entries, blocks, bytes; /* followed; of them those that are chunks of a heap */
};

PYTHON struct heap_entry {
	uint64_t at;    /* the chunk */
	uint32_t list;
	bool met;       /* it lies in a heap that was walked */
};

PYTHON struct heap_entries {
	struct heap_entry *at;
	size_t count, room;
};

#define LIST_ENTRIES_MAX (1ul << 23)

PYTHON void heap_list_deinit(struct heap_entries *entries);
PYTHON void heap_list_sort(struct heap_entries *entries);
/* The indexes of entries that lie in no heap, as many as have `room`; how many. */
PYTHON size_t heap_list_unmet(const struct heap_entries *entries, size_t *indexes, size_t room);
/* A list linked one way, whose first link is `head`, the next at `skip` behind each; the chunk
 * begins at `back` before what a link leads to.  `mangled`: links are protected (PROTECT_PTR, since
 * glibc 2.32).  0 or -ENOMEM; what came of it is in `list`, whose number is `number`. */
PYTHON int heap_list_single(struct view *view, uint64_t head, uint64_t skip, uint64_t back, bool mangled,
			    struct heap_entries *entries, struct heap_list *list, uint32_t number);
/* A bin, linked both ways (`fd` at 16, `bk` at 24); `bin` is the chunk that its head pretends to be. */
PYTHON int heap_list_double(struct view *view, uint64_t bin, struct heap_entries *entries,
			    struct heap_list *list, uint32_t number);

#endif
