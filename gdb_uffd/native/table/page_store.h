/* page_store.h - the page file of a recorded trace: numbered slots of 4096 bytes, a checksum for each
 * (docs/trace-format.md). */
#ifndef GDB_UFFD_PAGE_STORE_H
#define GDB_UFFD_PAGE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

#define SLOT_ZERO 0u                  /* a page of zeros, which is never stored */
#define SLOT_UNAVAILABLE 0xffffffffu  /* could not be read when it was recorded */

#define CRC_TABLES 16

PYTHON struct page_store {
	const uint8_t *pages; /* slot N at pages + N * 4096 */
	const uint32_t *sums; /* CRC-32 of each slot */
	uint64_t count;       /* slots that both have */
	uint32_t table[CRC_TABLES][256];
};

/* `pages` and `sums` stay the caller's; lengths in bytes. */
PYTHON void page_store_init(struct page_store *store, const uint8_t *pages, uint64_t pages_len,
			    const uint32_t *sums, uint64_t sums_len);

/* The CRC-32 of ISO 3309 that zlib's crc32() computes; `len` is a multiple of 16. */
PYTHON uint32_t page_store_crc(const struct page_store *store, const uint8_t *bytes, size_t len);

/* Copies a slot's page; -EFAULT where it is unavailable, out of bounds, cut short or damaged. */
PYTHON int page_store_read(const struct page_store *store, uint32_t slot, uint8_t *to);

#endif
