/* page_hash.h - a keyed 64-bit hash of a page, to tell whether it changed: products of 64 by 64 bits,
 * folded, as wyhash does (github.com/wangyi-fudan/wyhash, public domain). */
#ifndef GDB_UFFD_PAGE_HASH_H
#define GDB_UFFD_PAGE_HASH_H

#include <stdint.h>
#include <string.h>

#include "kernel/uffd.h"

static inline uint64_t page_hash_fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Whoever does not know `key` cannot make two pages with the same hash on purpose. */
static inline uint64_t page_hash(const uint8_t *bytes, uint64_t key)
{
	static const uint64_t MIX[4] = {0xa0761d6478bd642full, 0xe7037ed1a0b428dbull,
					0x8ebc6af09c88c6e3ull, 0x589965cc75374cc3ull};
	uint64_t sum[4] = {key, key ^ MIX[0], key ^ MIX[1], key ^ MIX[2]};

	for (size_t at = 0; at < PAGE_BYTES; at += 64) {
		for (int lane = 0; lane < 4; lane++) {
			uint64_t words[2];
			memcpy(words, bytes + at + (size_t)lane * 16, 16);
			sum[lane] = page_hash_fold(words[0] ^ MIX[lane], words[1] ^ sum[lane]);
		}
	}
	return page_hash_fold(sum[0] ^ sum[2] ^ MIX[3], sum[1] ^ sum[3] ^ key);
}

#endif
