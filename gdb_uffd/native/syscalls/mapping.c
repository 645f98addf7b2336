/* mapping.c - brk, mmap, munmap, mremap, mprotect, madvise of the running program: the table of mappings follows them,
 * and how it was before is kept for the transaction's end. */
#define _GNU_SOURCE
#include "syscalls/mapping.h"

#include <errno.h>
#include <string.h>

#include "pager/note.h"
#include "pager/source.h"
#include "process/call.h"
#include "process/vessel.h"

#define EMPTIED_MAX 16384 /* recorded pages of one range that are looked at: 64 MiB */

/* Before the first change of a transaction: how it was, for the way back. */
int mapping_remember(struct pager *pager)
{
	if (pager->mappings_changed)
		return 0;
	int rc = regions_copy(&pager->at_tx, &pager->regions);
	pager->mappings_changed = rc == 0;
	return rc;
}

static bool is_empty(struct pager *pager, uint64_t page)
{
	static const uint8_t zeros[PAGE_BYTES];
	uint8_t bytes[PAGE_BYTES];

	return source_page(&pager->regions, page, bytes) < 0 || !memcmp(bytes, zeros, sizeof(zeros));
}

/* Recorded pages lose their bytes by the program's doing, though nobody writes them. */
static int note_emptied(struct pager *pager, uint64_t start, uint64_t end, struct access *who)
{
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;
	const struct region *region = regions_next(&pager->regions, start);
	uint64_t seen = 0;

	for (; region && region->start < end; region = regions_next(&pager->regions, region->end)) {
		uint64_t page = region->start < start ? start : region->start;
		uint64_t last = region->end < end ? region->end : end;
		if ((region->kind != REGION_BYTES && region->kind != REGION_PAGES) || (region->flags & REGION_BORN))
			continue;
		for (; page < last && seen < EMPTIED_MAX; page += PAGE_BYTES, seen++) {
			const struct written *w = pages_written(&pager->pages, page);
			who->address = page;
			if (!(w && w->dirty) && is_empty(pager, page))
				continue;
			if (!note_write(pager, page, writer, who))
				return -ENOMEM;
		}
		pager->emptied_more += (last - page) / PAGE_BYTES;
	}
	return 0;
}

int mapping_save(struct vessel *vessel, const struct registers *regs, uint64_t start, uint64_t end)
{
	struct pager *pager = vessel->pager;
	struct access nobody = {0}, who = {
		.pc = PC(regs), .sp = SP(regs), .call = (uint32_t)NUMBER(regs) + 1};
	int rc = mapping_remember(pager);

	if (tracker_tells_first(&pager->tracker))
		who.tid = (uint32_t)vessel->pid;
	if (rc == 0)
		rc = tracker_before_mappings(pager, true);
	if (rc == 0)
		rc = note_emptied(pager, start, end, &who);
	/* Those that differ from the snapshot need their before-image now. */
	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (w->page < start || w->page >= end || !w->dirty || w->in_tx)
			continue;
		/* Not a write: only the image is taken, hence no writer. */
		if (!note_write(pager, w->page, 0, &nobody))
			rc = -ENOMEM;
	}
	return rc;
}

/* [start, end) is fresh memory of the program: tracked from its first touch. */
int mapping_add(struct pager *pager, uint64_t start, uint64_t end, int prot, uint32_t flags)
{
	struct region region = {
		.start = start, .end = end, .prot = prot, .kind = REGION_ZERO, .flags = REGION_BORN | flags};

	pages_forget_range(&pager->pages, start, end, true);
	if (uffd_register(pager->uffd, start, end - start, tracker_protects(&pager->tracker)) < 0)
		region.kind = REGION_NATIVE;
	return regions_set(&pager->regions, &region);
}

int mapping_drop(struct pager *pager, uint64_t start, uint64_t end)
{
	pages_forget_range(&pager->pages, start, end, true);
	return regions_clear(&pager->regions, start, end);
}

int mapping_munmap(struct vessel *vessel, struct registers *regs)
{
	uint64_t start = ARGUMENT(regs, 0), end = start + mapping_ceil(ARGUMENT(regs, 1));
	int64_t result;
	int rc = mapping_save(vessel, regs, start, end);

	if (rc == 0)
		rc = call_finish(vessel, regs, &result);
	return rc < 0 || result < 0 ? rc : mapping_drop(vessel->pager, start, end);
}

int mapping_mprotect(struct vessel *vessel, struct registers *regs)
{
	uint64_t start = ARGUMENT(regs, 0), end = start + mapping_ceil(ARGUMENT(regs, 1));
	int prot = (int)ARGUMENT(regs, 2) & 7;
	struct pager *pager = vessel->pager;
	const struct region *region = regions_find(&pager->regions, start);
	int64_t result;

	/* Access to reserved, unavailable pages would show zeros. */
	for (; region && region->start < end; region = regions_find(&pager->regions, region->end))
		if (region_is_reserved(region))
			return call_skip(vessel, regs, -EACCES);
	int rc = mapping_remember(pager);
	if (rc == 0)
		rc = call_finish(vessel, regs, &result);
	if (rc < 0 || (result < 0 && result != -ENOMEM))
		return rc;
	/* At a gap the kernel stops, and what lies before it is changed. */
	if (result < 0)
		end = regions_unbroken(&pager->regions, start, end);
	return regions_protect(&pager->regions, start, end, prot);
}
