/* source.c - where the bytes of a page come from. */
#define _GNU_SOURCE
#include "pager/source.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pager/pager.h"

int source_copy(void *to, const void *from, size_t len)
{
	struct iovec local = {to, len}, remote = {(void *)from, len};
	ssize_t done = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return done == (ssize_t)len ? 0 : -EFAULT;
}

int source_page(const struct regions *regions, uint64_t page, uint8_t *to)
{
	const struct region *region = regions_find(regions, page);

	if (region && region->kind == REGION_PAGES)
		return page_store_read(region->store, region->slots[(page - region->start) / PAGE_BYTES],
				       to);
	if (!region || region->kind != REGION_BYTES || page - region->start >= region->bytes_len) {
		memset(to, 0, PAGE_BYTES);
		return 0;
	}
	uint64_t skipped = page - region->start, left = region->bytes_len - skipped;
	if (left > PAGE_BYTES)
		left = PAGE_BYTES;
	memset(to + left, 0, PAGE_BYTES - left);
	return source_copy(to, region->bytes + skipped, left);
}

void source_mask(const struct pager *pager, uint64_t address, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < pager->breakpoint_count; i++) {
		for (int k = 0; k < BREAKPOINT_BYTES; k++) { /* `bytes` may begin or end inside it */
			uint64_t offset = pager->breakpoints[i].address + (uint64_t)k - address;
			if (offset < len && bytes[offset] == BREAKPOINT[k])
				bytes[offset] = pager->breakpoints[i].original[k];
		}
	}
}

int source_vessel(struct pager *pager, uint64_t page, uint8_t *to)
{
	ssize_t got = pread(pager->mem_fd, to, PAGE_BYTES, (off_t)page);

	if (got != (ssize_t)PAGE_BYTES)
		return got < 0 ? -errno : -EIO;
	source_mask(pager, page, to, PAGE_BYTES);
	return 0;
}

int source_before(struct pager *pager, const struct written *w, uint8_t *to)
{
	if (w->before) {
		memcpy(to, w->before, PAGE_BYTES);
		return 0;
	}
	return source_page(pager->mappings_changed ? &pager->at_tx : &pager->regions, w->page, to);
}
