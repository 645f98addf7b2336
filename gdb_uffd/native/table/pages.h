/* pages.h - what is known of each page of the vessel: present, written, by whom, and how it was. */
#ifndef GDB_UFFD_PAGES_H
#define GDB_UFFD_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

/* Who touched a page: from /proc/TID/syscall while the thread sleeps in its fault. */
PYTHON struct access {
	uint64_t pc, sp;
	uint64_t address; /* the byte; its page where the kernel does not tell (Linux < 5.18) */
	uint32_t tid; /* the vessel's TID; 0: nobody */
	uint32_t call; /* 1 + number of the system call that touched it; 0: an instruction did */
};

PYTHON enum writer { /* bits of written.writers */
	WRITER_PROGRAM = 1,
	WRITER_GDB = 2,    /* pushed frames, breakpoints, arguments */
	WRITER_MALLOC = 4, /* gdb's own call of malloc, for a string argument */
	WRITER_ASSIGNMENT = 8, /* gdb, as an expression or `set var` says */
	WRITERS_MEANT = WRITER_PROGRAM | WRITER_ASSIGNMENT,
};

#define IMAGES_MAX 16384 /* PYTHON; pages whose images one report keeps: 128 MiB of both */

/* A page that was written since the snapshot. */
struct written {
	uint64_t page;
	uint8_t *before;   /* 4096 bytes: how it was when the transaction began; NULL: as recorded */
	uint8_t *after_malloc; /* 4096 bytes: how gdb's own call of malloc left it, and what gdb put there,
				* or NULL */
	uint8_t *origin;   /* 4096 bytes: how what mremap moved here was before the transaction, or NULL */
	uint8_t *overlay;  /* 4096 bytes: kept contents to feed into the next vessel, or NULL */
	uint8_t *seen;     /* 4096 bytes: how the tracker that compares saw it last, or NULL: as fed */
	bool in_tx;        /* written in the open transaction */
	bool late;         /* after_malloc is from after the program first ran */
	bool counts_malloc; /* gdb's own malloc wrote there when what was before was settled */
	bool assigned_first; /* ... by an assignment, which counts: so does what malloc did behind it */
	bool was_dirty;    /* differed from the snapshot before the transaction */
	bool dirty;        /* may differ from the snapshot */
	bool armed;        /* write-protected now */
	uint8_t writers;   /* in this transaction */
	uint8_t kept_writers; /* in those that were kept */
	struct access first;        /* first write of the program in this transaction */
	struct access first_ever;   /* first write of the program since the snapshot */
	uint64_t *callers;          /* of the first write: callers.h; or NULL */
};

/* Open addressing from page address to state.  written: 1-based index, 0 for none. */
struct page_slot {
	uint64_t page; /* 0: free slot (page 0 is never mapped: vm.mmap_min_addr) */
	uint32_t written;
	bool present; /* fed: the vessel has it */
	bool grown;   /* ... and no recorded byte is in it */
	bool shared;  /* ... but it takes no memory: the kernel's own page of zeros */
};

PYTHON struct pages {
	struct page_slot *slots;
	size_t slot_mask, used;
	struct written *written;
	size_t written_count, written_room;
	size_t grown; /* pages that are there and were not recorded */
};

/* Pages that may differ from the snapshot. */
PYTHON size_t pages_count_dirty(const struct pages *pages);

int pages_init(struct pages *pages);
void pages_deinit(struct pages *pages);

struct page_slot *pages_find(const struct pages *pages, uint64_t page); /* or NULL */
struct page_slot *pages_get(struct pages *pages, uint64_t page);        /* makes it; NULL: no memory */
struct written *pages_written(const struct pages *pages, uint64_t page); /* or NULL */
struct written *pages_make_written(struct pages *pages, uint64_t page); /* NULL: no memory */

static inline bool pages_has(const struct pages *pages, uint64_t page)
{
	const struct page_slot *slot = pages_find(pages, page);

	return slot && slot->present;
}

/* The page is there; `grown`: nothing of it was recorded. */
void pages_set_present(struct pages *pages, struct page_slot *slot, bool grown);
/* The page is there, and takes no memory until it is written ... */
void pages_set_shared(struct pages *pages, struct page_slot *slot);
/* ... which is about to happen. */
void pages_set_own(struct pages *pages, struct page_slot *slot);
/* No page is present any more (the vessel went); what was written stays known. */
void pages_forget_present(struct pages *pages);
/* The pages in [start, end) are not present any more and have no kept contents; `other`: they are
 * other memory from now on, or none. */
void pages_forget_range(struct pages *pages, uint64_t start, uint64_t end, bool other);

#endif
