/* memory.c - the debugger's own reads and writes; the vessel is stopped. */
#define _GNU_SOURCE
#include "pager/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pager/feed.h"
#include "pager/note.h"
#include "pager/pager.h"
#include "pager/source.h"

int memory_make_writable(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);

	if (!pager->touches.on || !region || region->kind == REGION_NATIVE)
		return feed_missing(pager, page);
	return region->kind == REGION_UNAVAILABLE ? -EFAULT : 0;
}

/* A write to a page that is not fed yet: it will be fed with it. */
static int write_unfed(struct pager *pager, struct written *w, size_t offset, const uint8_t *from, size_t len)
{
	if (!w)
		return -ENOMEM;
	if (!w->overlay) {
		w->overlay = malloc(PAGE_BYTES);
		if (!w->overlay)
			return -ENOMEM;
		int rc = source_page(&pager->regions, w->page, w->overlay);
		if (rc < 0) {
			free(w->overlay);
			w->overlay = NULL;
			return rc;
		}
	}
	memcpy(w->overlay + offset, from, len);
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
	/* Who is not told of a first write does not know at any time what was written. */
	bool differs = (w && w->dirty) || pager->tracker.ran;
	if (pager->running && (region->kind == REGION_NATIVE || (slot && slot->present && differs))) {
		if (pread(pager->mem_fd, to, len, (off_t)(page + offset)) != (ssize_t)len)
			return -EFAULT;
		source_mask(pager, page + offset, to, len);
		return 0;
	}
	if (w && w->overlay) {
		memcpy(to, w->overlay + offset, len);
		source_mask(pager, page + offset, to, len);
		return 0;
	}
	if (region->kind == REGION_NATIVE)
		return -EFAULT;
	int rc = source_page(&pager->regions, page, scratch);
	if (rc == 0)
		memcpy(to, scratch + offset, len);
	return rc;
}

int memory_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done)
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

/* Lift, write through any protection (ptrace(2), FOLL_FORCE), arm. */
int memory_poke(struct pager *pager, uint64_t address, const uint8_t *from, size_t len)
{
	uint64_t page = address & ~(PAGE_BYTES - 1);
	struct written *w = pages_written(&pager->pages, page);
	const struct region *region = regions_find(&pager->regions, page);
	bool tracked = region && region->kind != REGION_NATIVE;
	bool arm = tracked && !(w && w->in_tx && !w->armed && (w->writers & WRITER_PROGRAM));

	if (tracked && pager->touches.on && !pages_has(&pager->pages, page))
		return write_unfed(pager, w, address - page, from, len);
	pager->watch.all |= watch_holds(&pager->watch, page);
	if (tracked && tracker_protects(&pager->tracker))
		uffd_protect(pager->uffd, page, PAGE_BYTES, false);
	pages_set_own(&pager->pages, pages_find(&pager->pages, page));
	ssize_t put = pwrite(pager->mem_fd, from, len, (off_t)address);
	int rc = put == (ssize_t)len ? 0 : put < 0 ? -errno : -EIO;
	if (!tracker_tells_first(&pager->tracker)) {
		int ignored = tracked ? tracker_ignore(pager, page) : 0;
		rc = rc < 0 ? rc : ignored;
	} else if (arm) {
		uffd_protect(pager->uffd, page, PAGE_BYTES, true);
		if (w)
			w->armed = true;
	}
	return rc;
}

int memory_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer)
{
	struct access nobody = {0};
	int rc = tracker_sync(pager);

	while (rc == 0 && len) {
		uint64_t page = address & ~(PAGE_BYTES - 1);
		size_t part = PAGE_BYTES - (size_t)(address - page);
		if (part > len)
			part = len;
		rc = memory_make_writable(pager, page);
		if (rc < 0)
			return rc;
		if (!note_write(pager, page, writer, &nobody))
			return -ENOMEM;
		rc = memory_poke(pager, address, from, part);
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
				memory_poke(pager, b->address, BREAKPOINT, BREAKPOINT_BYTES);
		}
		address += part;
		from += part;
		len -= part;
	}
	return rc;
}

