/* regions.h - where the bytes of each address range lie: sorted, disjoint, half-open ranges. */
#ifndef GDB_UFFD_REGIONS_H
#define GDB_UFFD_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"
#include "table/page_store.h"

PYTHON enum region_kind {
	REGION_ZERO = 0,    /* zeros */
	REGION_BYTES = 1,   /* bytes_len bytes at `bytes`, then zeros */
	REGION_UNAVAILABLE = 2, /* no bytes can be had: reserved in the vessel, never readable */
	REGION_PAGES = 4, /* page i is slot slots[i] of `store` */
	REGION_NATIVE = 3,  /* mapped by the program and not registrable (a device): not tracked */
};

PYTHON struct region {
	uint64_t start, end; /* page-aligned */
	const uint8_t *bytes; /* of `start` */
	uint64_t bytes_len;
	const struct page_store *store;
	const uint32_t *slots; /* of `start` */
	int prot;
	int kind;
	uint32_t flags; /* REGION_* below */
};

#define REGION_BORN 1u   /* PYTHON; mapped by the program in the diversion, not recorded */
#define REGION_FILE 4u   /* PYTHON; private pages of a file: MADV_DONTNEED would bring the file back */
#define REGION_SHARED 8u /* PYTHON; shared memory, recorded or asked for: MADV_DONTNEED keeps it */
#define REGION_GROWTH 2u /* PYTHON; room for a recorded stack to grow into */
#define REGION_UNKNOWN 16u /* PYTHON; the recording does not hold these bytes: they are taken for what is fed */
#define REGION_BEYOND 32u /* PYTHON; unavailable: behind the end of a mapped file, where a touch is SIGBUS */

PYTHON struct regions {
	struct region *at;
	size_t count, room;
	uint64_t code; /* another number when what is executable, and where, becomes another */
};

PYTHON void regions_deinit(struct regions *regions);
PYTHON int regions_copy(struct regions *to, const struct regions *from);

/* Whether the vessel has it without access, so that a touch is SIGSEGV. */
static inline bool region_is_reserved(const struct region *region)
{
	return region->kind == REGION_UNAVAILABLE && !(region->flags & REGION_BEYOND);
}

/* The region that holds `address`, or NULL. */
PYTHON const struct region *regions_find(const struct regions *regions, uint64_t address);
/* The first region that holds `address` or lies behind it, or NULL. */
const struct region *regions_next(const struct regions *regions, uint64_t address);
/* Where what is mapped without a gap from `start` on ends, at most `end`. */
uint64_t regions_unbroken(const struct regions *regions, uint64_t start, uint64_t end);

/* Replaces whatever lay in [region->start, region->end).  -ENOMEM leaves the table as it was. */
PYTHON int regions_set(struct regions *regions, const struct region *region);
int regions_clear(struct regions *regions, uint64_t start, uint64_t end);
int regions_protect(struct regions *regions, uint64_t start, uint64_t end, int prot);

/* The page's bytes as the region has them: a pointer into the source, or `scratch` filled. */
const uint8_t *region_page(const struct region *region, uint64_t page, uint8_t *scratch);

extern const uint8_t zero_page[4096];

#endif
