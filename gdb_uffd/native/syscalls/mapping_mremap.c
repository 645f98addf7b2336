/* mapping_mremap.c - mremap of the running program. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pager/feed.h"
#include "pager/note.h"
#include "pager/source.h"
#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"
#include "syscalls/mapping.h"
#include "syscalls/refuse.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
/* What pages are moved from does not read as zeros there, or has an end of its own. */
#define NOT_EMPTIED (REGION_SHARED | REGION_FILE | REGION_GROWTH)

/* mremap(2) where nothing moves: what was there stays as it is. */
static int resize(struct vessel *vessel, struct registers *regs, uint64_t end, uint64_t wanted,
		  const struct region *old)
{
	struct pager *pager = vessel->pager;
	unsigned long flags = ARGUMENT(regs, 3);
	int prot = old->prot;
	uint32_t shared = old->flags & REGION_SHARED;
	int64_t result;
	int rc = wanted < end ? mapping_save(vessel, regs, wanted, end) : mapping_remember(pager);

	if (rc < 0)
		return rc;
	ARGUMENT(regs, 3) = 0;
	rc = call_finish(vessel, regs, &result);
	ARGUMENT(regs, 3) = flags;
	if (rc == 0)
		rc = task_set_registers(vessel, regs);
	if (rc < 0 || (uint64_t)result >= (uint64_t)-4095 || wanted == end)
		return rc;
	return wanted < end ? mapping_drop(pager, wanted, end) : mapping_add(pager, end, wanted, prot, shared);
}

/* Whether all of [start, end) may be there (pager->limit). */
static bool has_room(struct pager *pager, uint64_t start, uint64_t end)
{
	const struct region *region = regions_next(&pager->regions, start);
	uint64_t fresh = 0, from, to;

	for (; region && region->start < end; region = regions_next(&pager->regions, region->end)) {
		if (region->kind != REGION_ZERO)
			continue;
		from = region->start < start ? start : region->start;
		to = region->end < end ? region->end : end;
		if (pager->limit && (to - from) / PAGE_BYTES > pager->limit)
			return false;
		for (uint64_t page = from; pager->limit && page < to; page += PAGE_BYTES) {
			const struct page_slot *slot = pages_find(&pager->pages, page);
			fresh += !slot || !slot->present || slot->shared;
		}
	}
	return !pager->limit || pager->pages.grown + fresh <= pager->limit;
}

/* How the pages that are about to be moved were before the transaction: there it is the same object
 * that has another address, and only what differs from then has changed. */
struct origins {
	uint8_t **at;
	size_t count;
	uint64_t missed;
};

static void drop_origins(struct origins *origins)
{
	for (size_t i = 0; i < origins->count; i++)
		free(origins->at[i]);
	free(origins->at);
}

static int keep_origins(struct pager *pager, uint64_t from, uint64_t len, struct origins *origins)
{
	size_t count = len / PAGE_BYTES < IMAGES_MAX ? len / PAGE_BYTES : IMAGES_MAX;

	if (count && !(origins->at = calloc(count, sizeof(*origins->at))))
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		uint64_t page = from + i * PAGE_BYTES;
		const struct written *w = pages_written(&pager->pages, page);
		uint8_t *to = malloc(PAGE_BYTES);
		int rc = 0;
		if (!to)
			return -ENOMEM;
		origins->at[origins->count++] = to;
		if (w && w->in_tx && w->origin)
			memcpy(to, w->origin, PAGE_BYTES);
		else if (w && w->in_tx)
			rc = source_before(pager, w, to);
		else
			rc = source_vessel(pager, page, to);
		if (rc < 0)
			return rc;
	}
	origins->missed = len / PAGE_BYTES - count;
	return 0;
}

/* mremap(2) drops the registration of what it moves (no UFFD_FEATURE_EVENT_REMAP is asked for),
 * so every page is fed first, and the new range is registered again. */
static int move(struct vessel *vessel, struct registers *regs, uint64_t old_len, uint64_t len,
		const struct region *old)
{
	struct pager *pager = vessel->pager;
	struct access who = {.pc = PC(regs), .sp = SP(regs)};
	uint64_t from = ARGUMENT(regs, 0), kept = old_len < len ? old_len : len;
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM, prot = old->prot;
	uint32_t shared = old->flags & REGION_SHARED;
	bool stays = ARGUMENT(regs, 3) & MREMAP_DONTUNMAP;
	int64_t result;

	if (tracker_tells_first(&pager->tracker))
		who.tid = (uint32_t)vessel->pid;
	if (!has_room(pager, from, from + kept)) {
		pager->over_limit = true;
		return 0;
	}
	__attribute__((cleanup(drop_origins))) struct origins origins = {0};
	int rc = mapping_save(vessel, regs, from, from + old_len);
	if (rc == 0 && (ARGUMENT(regs, 3) & MREMAP_FIXED))
		rc = mapping_save(vessel, regs, ARGUMENT(regs, 4), ARGUMENT(regs, 4) + len);
	if (rc == 0)
		rc = feed_range(pager, from, from + kept);
	if (rc == 0)
		rc = keep_origins(pager, from, kept, &origins);
	if (rc == 0)
		rc = call_finish(vessel, regs, &result);
	if (rc < 0 || (uint64_t)result >= (uint64_t)-4095)
		return rc;
	uint64_t to = (uint64_t)result;
	rc = stays ? mapping_add(pager, from, from + old_len, prot, 0) : mapping_drop(pager, from, from + old_len);
	if (rc == 0)
		rc = mapping_add(pager, to, to + len, prot, shared);
	/* What moved is present at its new place, and differs from what was there before. */
	for (uint64_t done = 0; rc == 0 && done < kept; done += PAGE_BYTES) {
		struct page_slot *slot = pages_get(&pager->pages, to + done);
		who.address = to + done;
		struct written *w = slot ? note_write(pager, to + done, writer, &who) : NULL;
		if (!w) {
			rc = -ENOMEM;
			break;
		}
		if (done / PAGE_BYTES < origins.count) {
			free(w->origin);
			w->origin = origins.at[done / PAGE_BYTES];
			origins.at[done / PAGE_BYTES] = NULL;
		}
		pages_set_present(&pager->pages, pages_find(&pager->pages, to + done), true);
		w->armed = false;
		rc = tracker_moved(pager, to + done);
	}
	pager->unmoved += origins.missed;
	return rc;
}

int mapping_mremap(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t from = ARGUMENT(regs, 0), old_len = mapping_ceil(ARGUMENT(regs, 1)), len = mapping_ceil(ARGUMENT(regs, 2));
	const struct region *first = regions_find(&pager->regions, from), *region = first;

	if (!region)
		return call_skip(vessel, regs, -EFAULT);
	if (ARGUMENT(regs, 3) & ~(unsigned long)(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
		return refuse_call(vessel, regs, EINVAL);
	/* A second mapping of the same, where that can be (mremap(2), "old_size"): not with private memory, as all is here. */
	if (!old_len && (first->flags & (REGION_SHARED | REGION_FILE)))
		return refuse_call(vessel, regs, EINVAL);
	for (; region && region->start < from + old_len; region = regions_find(&pager->regions, region->end))
		if (region->kind == REGION_UNAVAILABLE || region->prot != first->prot)
			return refuse_call(vessel, regs, EFAULT);
		else if ((ARGUMENT(regs, 3) & MREMAP_DONTUNMAP) && (region->flags & NOT_EMPTIED))
			return refuse_call(vessel, regs, EINVAL);
	/* Where the kernel can, it leaves the pages in their place. */
	const struct region *next = regions_next(&pager->regions, from + old_len);
	bool stays = old_len && len && !(ARGUMENT(regs, 3) & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && from + len > from &&
		     (len <= old_len || !next || next->start >= from + len);
	if (stays)
		return resize(vessel, regs, from + old_len, from + len, first);
	return move(vessel, regs, old_len, len, first);
}
