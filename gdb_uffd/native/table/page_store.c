#define _GNU_SOURCE
#include "table/page_store.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/uffd.h"

#define CRC_POLYNOMIAL 0xedb88320u /* ISO 3309, reflected (RFC 1952, 8) */

void page_store_init(struct page_store *store, const uint8_t *pages, uint64_t pages_len, const uint32_t *sums,
		     uint64_t sums_len)
{
	uint64_t with_bytes = pages_len / PAGE_BYTES, with_sum = sums_len / sizeof(*sums);

	store->pages = pages;
	store->sums = sums;
	store->count = with_bytes < with_sum ? with_bytes : with_sum;
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC_POLYNOMIAL : 0);
		store->table[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int t = 1; t < CRC_TABLES; t++) {
			uint32_t before = store->table[t - 1][i];
			store->table[t][i] = before >> 8 ^ store->table[0][before & 0xff];
		}
}

/* Sixteen bytes a round, each through a table of its own ("slicing": Kounavis and Berry, 2005). */
uint32_t page_store_crc(const struct page_store *store, const uint8_t *bytes, size_t len)
{
	const uint32_t (*t)[256] = store->table;
	uint32_t crc = 0xffffffffu;

	for (; len >= 16; bytes += 16, len -= 16) {
		uint32_t word[4];
		memcpy(word, bytes, sizeof(word));
		word[0] ^= crc;
		crc = 0;
		for (int i = 0; i < 4; i++)
			crc ^= t[15 - 4 * i][word[i] & 0xff] ^ t[14 - 4 * i][word[i] >> 8 & 0xff] ^
			       t[13 - 4 * i][word[i] >> 16 & 0xff] ^ t[12 - 4 * i][word[i] >> 24];
	}
	return ~crc;
}

int page_store_read(const struct page_store *store, uint32_t slot, uint8_t *to)
{
	uint32_t sum;

	if (slot == SLOT_ZERO) {
		memset(to, 0, PAGE_BYTES);
		return 0;
	}
	if (slot >= store->count)
		return -EFAULT;
	/* Both files are mapped, and somebody may cut them short: an error then, not SIGBUS. */
	struct iovec local[2] = {{to, PAGE_BYTES}, {&sum, sizeof(sum)}};
	struct iovec remote[2] = {{(void *)(store->pages + (uint64_t)slot * PAGE_BYTES), PAGE_BYTES},
				  {(void *)(store->sums + slot), sizeof(sum)}};
	ssize_t got = process_vm_readv(getpid(), local, 2, remote, 2, 0);
	if (got != (ssize_t)(PAGE_BYTES + sizeof(sum)))
		return -EFAULT;
	return page_store_crc(store, to, PAGE_BYTES) == sum ? 0 : -EFAULT;
}
