/* memory.c - the debugger's own reads, writes and breakpoints; the vessel is stopped. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pager.h"
#include "uffd.h"

int pager_keep_map(struct pager *pager, void *at, size_t len)
{
	if (pager->map_count == pager->map_room) {
		size_t room = pager->map_room ? pager->map_room * 2 : 16;
		struct file_map *maps = realloc(pager->maps, room * sizeof(*maps));
		if (!maps) {
			munmap(at, len);
			return -ENOMEM;
		}
		pager->maps = maps;
		pager->map_room = room;
	}
	pager->maps[pager->map_count++] = (struct file_map){at, len, true};
	return 0;
}

void pager_drop_maps(struct pager *pager, bool all)
{
	size_t kept = 0;

	for (size_t i = 0; i < pager->map_count; i++) {
		if (all || pager->maps[i].in_tx)
			munmap(pager->maps[i].at, pager->maps[i].len);
		else
			pager->maps[kept++] = pager->maps[i];
	}
	pager->map_count = kept;
}

void pager_commit_maps(struct pager *pager)
{
	for (size_t i = 0; i < pager->map_count; i++)
		pager->maps[i].in_tx = false;
}

int pager_populate(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);
	struct page_slot *slot = pages_find(&pager->pages, page);

	if (slot && slot->present)
		return 0;
	if (!region || region->kind == REGION_UNAVAILABLE)
		return -EFAULT;
	if (region->kind == REGION_NATIVE)
		return 0;
	return pager_feed(pager, region, page, true);
}

bool pager_has_room(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);
	const struct page_slot *slot = pages_find(&pager->pages, page);

	if (!pager->limit || pager->pages.grown < pager->limit || (slot && slot->present && !slot->shared) || !region ||
	    region->kind != REGION_ZERO)
		return true;
	pager->over_limit = true;
	return false;
}

static bool is_present(const struct pager *pager, uint64_t page)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);

	return slot && slot->present;
}

int pager_make_writable(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);

	if (!pager->touches.on || !region || region->kind == REGION_NATIVE)
		return pager_populate(pager, page);
	return region->kind == REGION_UNAVAILABLE ? -EFAULT : 0;
}

/* A write to a page that is not fed yet: it will be fed with it. */
static int write_unfed(struct pager *pager, struct written *w, size_t offset, const uint8_t *from,
		       size_t len)
{
	if (!w)
		return -ENOMEM;
	if (!w->overlay) {
		w->overlay = malloc(PAGE_BYTES);
		if (!w->overlay)
			return -ENOMEM;
		int rc = pager_source_page(&pager->regions, w->page, w->overlay);
		if (rc < 0) {
			free(w->overlay);
			w->overlay = NULL;
			return rc;
		}
	}
	memcpy(w->overlay + offset, from, len);
	return 0;
}

int pager_populate_range(struct pager *pager, uint64_t start, uint64_t end)
{
	for (uint64_t page = start; page < end; page += PAGE_BYTES) {
		int rc = pager_populate(pager, page);
		if (rc < 0 && rc != -EFAULT)
			return rc;
	}
	return 0;
}

static int read_page_part(struct pager *pager, uint64_t page, size_t offset, uint8_t *to, size_t len)
{
	const struct region *region = regions_find(&pager->regions, page);
	uint8_t scratch[PAGE_BYTES];

	if (!region || region->kind == REGION_UNAVAILABLE)
		return -EFAULT;
	struct page_slot *slot = pages_find(&pager->pages, page);
	struct written *w = slot && slot->written ? &pager->pages.written[slot->written - 1] : NULL;
	/* Only wp-sync knows at any time what was written. */
	bool differs = (w && w->dirty) || pager->engine.ran;
	if (pager->running && (region->kind == REGION_NATIVE || (slot && slot->present && differs))) {
		if (pread(pager->mem_fd, to, len, (off_t)(page + offset)) != (ssize_t)len)
			return -EFAULT;
		pager_mask_breakpoints(pager, page + offset, to, len);
		return 0;
	}
	if (w && w->overlay) {
		memcpy(to, w->overlay + offset, len);
		pager_mask_breakpoints(pager, page + offset, to, len);
		return 0;
	}
	if (region->kind == REGION_NATIVE)
		return -EFAULT;
	int rc = pager_source_page(&pager->regions, page, scratch);
	if (rc == 0)
		memcpy(to, scratch + offset, len);
	return rc;
}

int pager_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done)
{
	*done = 0;
	while (*done < len) {
		uint64_t at = address + *done, page = at & ~(PAGE_BYTES - 1);
		size_t offset = (size_t)(at - page), part = PAGE_BYTES - offset;
		if (part > len - *done)
			part = len - *done;
		int rc = read_page_part(pager, page, offset, to + *done, part);
		if (rc < 0)
			return rc;
		*done += part;
	}
	return 0;
}

/* One stretch inside a page: lift, write through any protection (ptrace(2), FOLL_FORCE), arm. */
static int poke(struct pager *pager, uint64_t address, const uint8_t *from, size_t len)
{
	uint64_t page = address & ~(PAGE_BYTES - 1);
	struct written *w = pages_written(&pager->pages, page);
	const struct region *region = regions_find(&pager->regions, page);
	bool tracked = region && region->kind != REGION_NATIVE;
	bool arm = tracked && !(w && w->in_tx && !w->armed && (w->writers & WRITER_PROGRAM));

	if (tracked && pager->touches.on && !is_present(pager, page))
		return write_unfed(pager, w, address - page, from, len);
	pager->watch.all |= watch_holds(&pager->watch, page);
	if (tracked && engine_protects(&pager->engine))
		uffd_protect(pager->uffd, page, PAGE_BYTES, false);
	pages_set_own(&pager->pages, pages_find(&pager->pages, page));
	ssize_t put = pwrite(pager->mem_fd, from, len, (off_t)address);
	int rc = put == (ssize_t)len ? 0 : put < 0 ? -errno : -EIO;
	if (pager->engine.kind != ENGINE_WP_SYNC) {
		int disregarded = tracked ? engine_disregard(pager, page) : 0;
		rc = rc < 0 ? rc : disregarded;
	} else if (arm) {
		uffd_protect(pager->uffd, page, PAGE_BYTES, true);
		if (w)
			w->armed = true;
	}
	return rc;
}

int pager_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer)
{
	struct access nobody = {0};
	int rc = engine_settle(pager);

	while (rc == 0 && len) {
		uint64_t page = address & ~(PAGE_BYTES - 1);
		size_t part = PAGE_BYTES - (size_t)(address - page);
		if (part > len)
			part = len;
		rc = pager_make_writable(pager, page);
		if (rc < 0)
			return rc;
		if (!pager_note_write(pager, page, writer, &nobody))
			return -ENOMEM;
		rc = poke(pager, address, from, part);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < pager->breakpoint_count; i++) {
			/* gdb writes over an inserted breakpoint: what lies beneath changes. */
			struct breakpoint *b = &pager->breakpoints[i];
			bool over = false;
			for (int k = 0; k < BREAKPOINT_BYTES; k++) {
				uint64_t offset = b->address + (uint64_t)k - address;
				if (offset >= part)
					continue;
				b->original[k] = from[offset];
				over = true;
			}
			if (over)
				poke(pager, b->address, BREAKPOINT, BREAKPOINT_BYTES);
		}
		address += part;
		from += part;
		len -= part;
	}
	return rc;
}

int pager_breakpoint_insert(struct pager *pager, uint64_t address)
{
	struct access nobody = {0};
	uint64_t page = address & ~(PAGE_BYTES - 1);
	struct breakpoint made = {.address = address};
	size_t done;

	for (size_t i = 0; i < pager->breakpoint_count; i++)
		if (pager->breakpoints[i].address == address)
			return 0;
	if (address % BREAKPOINT_BYTES)
		return -EINVAL; /* no instruction begins there */
	if (pager->breakpoint_count == BREAKPOINTS_MAX)
		return -ENOSPC;
	int rc = engine_settle(pager);
	if (rc == 0)
		rc = pager_read(pager, address, made.original, BREAKPOINT_BYTES, &done);
	if (rc == 0)
		rc = pager_make_writable(pager, page);
	if (rc < 0)
		return rc;
	if (!pager_note_write(pager, page, WRITER_GDB, &nobody))
		return -ENOMEM;
	/* Known before it is there: no look may take it for the program's. */
	pager->breakpoints[pager->breakpoint_count++] = made;
	rc = poke(pager, address, BREAKPOINT, BREAKPOINT_BYTES);
	if (rc < 0)
		pager->breakpoint_count--;
	return rc;
}

int pager_breakpoint_remove(struct pager *pager, uint64_t address)
{
	for (size_t i = 0; i < pager->breakpoint_count; i++) {
		struct breakpoint *b = &pager->breakpoints[i];
		if (b->address != address)
			continue;
		for (size_t k = 0; k < pager->planted_count; k++)
			if (pager->planted[k] == address)
				return 0; /* ours as well */
		uint64_t page = address & ~(PAGE_BYTES - 1);
		const struct written *w = pages_written(&pager->pages, page);
		uint8_t now[BREAKPOINT_BYTES] = {0};
		int rc = engine_settle(pager);
		if (rc < 0)
			return rc;
		if (w && w->overlay && !is_present(pager, page))
			memcpy(now, w->overlay + (address - page), BREAKPOINT_BYTES);
		else if (pread(pager->mem_fd, now, BREAKPOINT_BYTES, (off_t)address) != BREAKPOINT_BYTES)
			memset(now, 0, sizeof(now));
		/* Unless the program wrote there itself meanwhile. */
		if (memcmp(now, BREAKPOINT, BREAKPOINT_BYTES) == 0)
			rc = poke(pager, address, b->original, BREAKPOINT_BYTES);
		*b = pager->breakpoints[--pager->breakpoint_count];
		return rc;
	}
	return 0;
}

int pager_plant(struct pager *pager, uint64_t address, bool in)
{
	int rc = engine_settle(pager);

	for (size_t i = 0; rc == 0 && i < pager->breakpoint_count; i++)
		if (pager->breakpoints[i].address == address)
			return poke(pager, address, in ? BREAKPOINT : pager->breakpoints[i].original,
				    BREAKPOINT_BYTES);
	return rc < 0 ? rc : -ENOENT;
}
