/* layout_save.c - before the layout changes: what the transaction's end needs to know of how it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "layout.h"
#include "uffd.h"

#define EMPTIED_MAX 16384 /* recorded pages of one range that are looked at: 64 MiB */

/* Before the first change of a transaction: how it was, for the way back. */
int layout_remember(struct pager *pager)
{
	if (pager->layout_changed)
		return 0;
	int rc = regions_copy(&pager->at_tx, &pager->regions);
	pager->layout_changed = rc == 0;
	return rc;
}

static bool is_empty(struct pager *pager, uint64_t page)
{
	static const uint8_t zeros[PAGE_BYTES];
	uint8_t bytes[PAGE_BYTES];

	return pager_source_page(&pager->regions, page, bytes) < 0 || !memcmp(bytes, zeros, sizeof(zeros));
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
			if (!pager_note_write(pager, page, writer, who))
				return -ENOMEM;
		}
		pager->emptied_more += (last - page) / PAGE_BYTES;
	}
	return 0;
}

int layout_save_range(struct vessel *vessel, const struct registers *regs, uint64_t start, uint64_t end)
{
	struct pager *pager = vessel->pager;
	struct access nobody = {0}, who = {
		.pc = PC(regs), .sp = SP(regs), .call = (uint32_t)NUMBER(regs) + 1};
	int rc = layout_remember(pager);

	if (pager->engine.kind == ENGINE_WP_SYNC) /* the only one to tell who wrote */
		who.tid = (uint32_t)vessel->pid;
	if (rc == 0)
		rc = engine_before_layout(pager, true);
	if (rc == 0)
		rc = note_emptied(pager, start, end, &who);
	/* Those that differ from the snapshot need their before-image now. */
	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (w->page < start || w->page >= end || !w->dirty || w->in_tx)
			continue;
		/* Not a write: only the image is taken, hence no writer. */
		if (!pager_note_write(pager, w->page, 0, &nobody))
			rc = -ENOMEM;
	}
	return rc;
}
