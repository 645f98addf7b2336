/* mapping_madvise.c - madvise(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"
#include "syscalls/mapping.h"
#include "syscalls/refuse.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif

enum effect { NONE, HARMLESS, EMPTIES, UNSEEN };

static enum effect effect_of(int advice)
{
	switch (advice) {
	case MADV_FREE: /* hints: keeping the pages as they are is allowed */
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
		return NONE;
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_WIPEONFORK:
	case MADV_KEEPONFORK:
		return HARMLESS;
	case MADV_DONTNEED:
	case MADV_REMOVE:
	case MADV_DONTNEED_LOCKED:
		return EMPTIES;
	default:
		/* Pages would go or come unseen (MADV_GUARD_INSTALL, for which glibc falls back to mprotect;
		 * MADV_POPULATE_WRITE, whose loop in the kernel heeds no signal). */
		return UNSEEN;
	}
}

static bool is_shared(const struct regions *regions, uint64_t address)
{
	const struct region *region = regions_find(regions, address);

	return region && (region->flags & REGION_SHARED);
}

/* Whether there is none but shared memory, or no private pages of a recorded file: they would show the file again,
 * which is not at hand here. */
static bool can_be_emptied(const struct regions *regions, uint64_t start, uint64_t end)
{
	bool shared = is_shared(regions, start);
	const struct region *region = regions_next(regions, start);

	for (; region && region->start < end; region = regions_next(regions, region->end))
		if ((shared && !(region->flags & REGION_SHARED)) ||
		    (region->flags & (REGION_FILE | REGION_BORN)) == REGION_FILE)
			return false;
	return true;
}

/* Anonymous memory reads as zeros from now on; the recorded bytes are gone. */
static int empty(struct pager *pager, uint64_t start, uint64_t end)
{
	int rc = 0;

	pages_forget_range(&pager->pages, start, end, false);
	for (uint64_t at = start; rc == 0 && at < end;) {
		const struct region *region = regions_next(&pager->regions, at);
		if (!region || region->start >= end)
			break;
		struct region zero = *region;
		zero.start = region->start < at ? at : region->start;
		zero.end = region->end < end ? region->end : end;
		zero.bytes = NULL;
		zero.bytes_len = 0;
		at = zero.end;
		/* A file that the program mapped itself is fed again from that file. */
		if ((zero.kind != REGION_BYTES && zero.kind != REGION_ZERO) || (zero.flags & REGION_FILE))
			continue;
		zero.kind = REGION_ZERO;
		zero.flags |= REGION_BORN;
		rc = regions_set(&pager->regions, &zero);
	}
	return rc;
}

int mapping_madvise(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t start = ARGUMENT(regs, 0), end = start + mapping_ceil(ARGUMENT(regs, 1));
	unsigned long asked = ARGUMENT(regs, 2);
	enum effect effect = effect_of((int)asked);
	int64_t result;

	if (effect == HARMLESS)
		return 0;
	if (effect != EMPTIES)
		return call_skip(vessel, regs, effect == NONE ? 0 : -EINVAL);
	if (!can_be_emptied(&pager->regions, start, end))
		return refuse_call(vessel, regs, EINVAL);
	if (is_shared(&pager->regions, start)) {
		if ((int)asked != MADV_REMOVE)
			return call_skip(vessel, regs, 0);
		ARGUMENT(regs, 2) = MADV_DONTNEED; /* what frees it where it is private */
	}
	int rc = mapping_save(vessel, regs, start, end);
	if (rc == 0)
		rc = call_finish(vessel, regs, &result);
	if (rc == 0 && ARGUMENT(regs, 2) != asked) {
		ARGUMENT(regs, 2) = asked;
		rc = task_set_registers(vessel, regs);
	}
	if (rc < 0 || (result < 0 && result != -ENOMEM)) /* ENOMEM: there were gaps */
		return rc;
	return empty(pager, start, end);
}
