#define _GNU_SOURCE
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notify.h"
#include "uffd.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif

#define PLACED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

int layout_finish(struct vessel *vessel, struct registers *regs, bool notified, int64_t *result)
{
	int status, rc = vessel_set_registers(vessel, regs);

	if (rc < 0)
		return rc;
	/* Signals wait for the way back to user mode, behind the exit stop. */
	do {
		if (ptrace(PTRACE_SYSCALL, vessel->pid, NULL, NULL) < 0)
			return -errno;
		rc = notified ? notify_let_one(vessel) : 0;
		notified = false;
		if (rc == 0)
			rc = vessel_wait_stop(vessel, &status);
		if (rc < 0)
			return rc;
	} while (WSTOPSIG(status) != (SIGTRAP | 0x80));
	vessel->at_exit = true;
	rc = vessel_get_registers(vessel, regs);
	*result = (int64_t)RESULT(regs);
	return rc;
}

int layout_finish_call(struct vessel *vessel, struct registers *regs, int64_t *result)
{
	return layout_finish(vessel, regs, false, result);
}

static int set_result(struct vessel *vessel, struct registers *regs, int64_t result)
{
	RESULT(regs) = (unsigned long)result;
	return vessel_set_registers(vessel, regs);
}

/* [start, end) is fresh memory of the program: tracked from its first touch. */
int layout_add_zero(struct pager *pager, uint64_t start, uint64_t end, int prot, uint32_t flags)
{
	struct region region = {
		.start = start, .end = end, .prot = prot, .kind = REGION_ZERO, .flags = REGION_BORN | flags};

	pages_forget_range(&pager->pages, start, end, true);
	if (uffd_register(pager->uffd, start, end - start, engine_protects(&pager->engine)) < 0)
		region.kind = REGION_NATIVE;
	return regions_set(&pager->regions, &region);
}

int layout_drop(struct pager *pager, uint64_t start, uint64_t end)
{
	pages_forget_range(&pager->pages, start, end, true);
	return regions_clear(&pager->regions, start, end);
}

/* The kernel's brk cannot be moved to the recorded heap (PR_SET_MM_MAP refuses it below
 * end_data), so brk is made of mmap and munmap. */
static int do_brk(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t wanted = ARGUMENT(regs, 0), from = layout_ceil(vessel->brk_now), to = layout_ceil(wanted);
	int64_t result;
	int rc;

	if (!vessel->brk_start || wanted < vessel->brk_start || to < wanted)
		return policy_skip(vessel, regs, (int64_t)vessel->brk_now);
	if (to == from) {
		vessel->brk_now = wanted;
		return policy_skip(vessel, regs, (int64_t)wanted);
	}
	if (vessel->policy.level == LEVEL_NONE) {
		policy_refuse(vessel, regs, ENOMEM);
		return policy_skip(vessel, regs, (int64_t)vessel->brk_now);
	}
	bool grow = to > from;
	rc = grow ? layout_remember(pager) : layout_save_range(vessel, regs, to, from);
	if (rc < 0)
		return rc;
	struct registers own = *regs;
	NUMBER(&own) = RESULT(&own) = grow ? SYS_mmap : SYS_munmap;
	ARGUMENT(&own, 0) = grow ? from : to;
	ARGUMENT(&own, 1) = grow ? to - from : from - to;
	if (grow) {
		ARGUMENT(&own, 2) = PROT_READ | PROT_WRITE;
		ARGUMENT(&own, 3) = PLACED | MAP_FIXED_NOREPLACE;
		ARGUMENT(&own, 4) = (unsigned long)-1;
		ARGUMENT(&own, 5) = 0;
	}
	rc = layout_finish_call(vessel, &own, &result);
	if (rc < 0)
		return rc;
	if (grow ? result == (int64_t)from : result == 0) {
		rc = grow ? layout_add_zero(pager, from, to, PROT_READ | PROT_WRITE, 0) : layout_drop(pager, to, from);
		vessel->brk_now = wanted;
	}
	/* The program's own argument registers come back; only the result is new. */
	arch_restore_arguments(&own, regs);
	return rc < 0 ? rc : set_result(vessel, &own, (int64_t)vessel->brk_now);
}

static int do_munmap(struct vessel *vessel, struct registers *regs)
{
	uint64_t start = ARGUMENT(regs, 0), end = start + layout_ceil(ARGUMENT(regs, 1));
	int64_t result;
	int rc = layout_save_range(vessel, regs, start, end);

	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	return rc < 0 || result < 0 ? rc : layout_drop(vessel->pager, start, end);
}

static int do_mprotect(struct vessel *vessel, struct registers *regs)
{
	uint64_t start = ARGUMENT(regs, 0), end = start + layout_ceil(ARGUMENT(regs, 1));
	int prot = (int)ARGUMENT(regs, 2) & 7;
	struct pager *pager = vessel->pager;
	const struct region *region = regions_find(&pager->regions, start);
	int64_t result;

	/* Access to reserved, unavailable pages would show zeros. */
	for (; region && region->start < end; region = regions_find(&pager->regions, region->end))
		if (region_is_reserved(region))
			return policy_skip(vessel, regs, -EACCES);
	int rc = layout_remember(pager);
	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0 || (result < 0 && result != -ENOMEM))
		return rc;
	/* At a gap the kernel stops, and what lies before it is changed. */
	if (result < 0)
		end = regions_unbroken(&pager->regions, start, end);
	return regions_protect(&pager->regions, start, end, prot);
}

static int do_madvise(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t start = ARGUMENT(regs, 0), end = start + layout_ceil(ARGUMENT(regs, 1));
	int64_t result;

	switch ((int)ARGUMENT(regs, 2)) {
	case MADV_FREE: /* hints: keeping the pages as they are is allowed */
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
		return policy_skip(vessel, regs, 0);
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
		return 0;
	case MADV_DONTNEED:
	case MADV_REMOVE:
	case MADV_DONTNEED_LOCKED:
		break;
	default:
		/* Pages would go or come unseen (MADV_GUARD_INSTALL, for which glibc falls back to mprotect;
		 * MADV_POPULATE_WRITE, whose loop in the kernel heeds no signal). */
		return policy_skip(vessel, regs, -EINVAL);
	}
	const struct region *first = regions_find(&pager->regions, start);
	unsigned long asked = ARGUMENT(regs, 2);
	if (first && (first->flags & REGION_SHARED)) {
		for (const struct region *next = first; next && next->start < end; next = regions_next(&pager->regions, next->end))
			if (!(next->flags & REGION_SHARED))
				return policy_refuse(vessel, regs, EINVAL);
		if (ARGUMENT(regs, 2) != MADV_REMOVE)
			return policy_skip(vessel, regs, 0);
		ARGUMENT(regs, 2) = MADV_DONTNEED; /* what frees it where it is private */
	}
	/* A recorded file's private pages would show the file again, which is not at hand here. */
	for (uint64_t at = start; at < end;) {
		const struct region *region = regions_next(&pager->regions, at);
		if (!region || region->start >= end)
			break;
		if ((region->flags & (REGION_FILE | REGION_BORN)) == REGION_FILE)
			return policy_refuse(vessel, regs, EINVAL);
		at = region->end;
	}
	int rc = layout_save_range(vessel, regs, start, end);
	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	if (rc == 0 && ARGUMENT(regs, 2) != asked) {
		ARGUMENT(regs, 2) = asked;
		rc = vessel_set_registers(vessel, regs);
	}
	if (rc < 0 || (result < 0 && result != -ENOMEM)) /* ENOMEM: there were gaps */
		return rc;
	/* Anonymous memory reads as zeros from now on; the recorded bytes are gone. */
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

int layout_system_call(struct vessel *vessel, struct registers *regs)
{
	int rc = engine_before_layout(vessel->pager, false);
	if (rc < 0)
		return rc;
	switch (NUMBER(regs)) {
	case SYS_brk:
		return do_brk(vessel, regs);
	case SYS_mmap:
		return layout_mmap(vessel, regs);
	case SYS_munmap:
		return do_munmap(vessel, regs);
	case SYS_mremap:
		return layout_mremap(vessel, regs);
	case SYS_mprotect:
		return do_mprotect(vessel, regs);
	case SYS_pkey_mprotect: /* there are no keys but "none" */
		return (int)ARGUMENT(regs, 3) == -1 ? do_mprotect(vessel, regs) : policy_skip(vessel, regs, -EINVAL);
	case SYS_madvise:
		return do_madvise(vessel, regs);
	default:
		return 0;
	}
}
