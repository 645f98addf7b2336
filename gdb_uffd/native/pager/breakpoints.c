/* breakpoints.c - breakpoint instructions in the vessel's code, which nobody sees in its memory. */
#define _GNU_SOURCE
#include "pager/breakpoints.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "pager/memory.h"
#include "pager/note.h"
#include "pager/pager.h"

int breakpoint_insert(struct pager *pager, uint64_t address)
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
	int rc = tracker_sync(pager);
	if (rc == 0)
		rc = memory_read(pager, address, made.original, BREAKPOINT_BYTES, &done);
	if (rc == 0)
		rc = memory_make_writable(pager, page);
	if (rc < 0)
		return rc;
	if (!note_write(pager, page, WRITER_GDB, &nobody))
		return -ENOMEM;
	/* Known before it is there: no look may take it for the program's. */
	pager->breakpoints[pager->breakpoint_count++] = made;
	rc = memory_poke(pager, address, BREAKPOINT, BREAKPOINT_BYTES);
	if (rc < 0)
		pager->breakpoint_count--;
	return rc;
}

int breakpoint_remove(struct pager *pager, uint64_t address)
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
		int rc = tracker_sync(pager);
		if (rc < 0)
			return rc;
		if (w && w->overlay && !pages_has(&pager->pages, page))
			memcpy(now, w->overlay + (address - page), BREAKPOINT_BYTES);
		else if (pread(pager->mem_fd, now, BREAKPOINT_BYTES, (off_t)address) != BREAKPOINT_BYTES)
			memset(now, 0, sizeof(now));
		/* Unless the program wrote there itself meanwhile. */
		if (memcmp(now, BREAKPOINT, BREAKPOINT_BYTES) == 0)
			rc = memory_poke(pager, address, b->original, BREAKPOINT_BYTES);
		*b = pager->breakpoints[--pager->breakpoint_count];
		return rc;
	}
	return 0;
}

int breakpoint_put(struct pager *pager, uint64_t address, bool in)
{
	int rc = tracker_sync(pager);

	for (size_t i = 0; rc == 0 && i < pager->breakpoint_count; i++)
		if (pager->breakpoints[i].address == address)
			return memory_poke(pager, address, in ? BREAKPOINT : pager->breakpoints[i].original,
				    BREAKPOINT_BYTES);
	return rc < 0 ? rc : -ENOENT;
}
