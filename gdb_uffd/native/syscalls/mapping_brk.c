/* mapping_brk.c - brk(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"
#include "syscalls/mapping.h"
#include "syscalls/refuse.h"

#define PLACED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static int set_result(struct vessel *vessel, struct registers *regs, int64_t result)
{
	RESULT(regs) = (unsigned long)result;
	return task_set_registers(vessel, regs);
}

/* The kernel's brk cannot be moved to the recorded heap (PR_SET_MM_MAP refuses it below
 * end_data), so brk is made of mmap and munmap. */
int mapping_brk(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t wanted = ARGUMENT(regs, 0), from = mapping_ceil(vessel->brk_now), to = mapping_ceil(wanted);
	int64_t result;
	int rc;

	if (!vessel->brk_start || wanted < vessel->brk_start || to < wanted)
		return call_skip(vessel, regs, (int64_t)vessel->brk_now);
	if (to == from) {
		vessel->brk_now = wanted;
		return call_skip(vessel, regs, (int64_t)wanted);
	}
	if (vessel->policy.level == LEVEL_NONE) {
		refuse_call(vessel, regs, ENOMEM);
		return call_skip(vessel, regs, (int64_t)vessel->brk_now);
	}
	bool grow = to > from;
	rc = grow ? mapping_remember(pager) : mapping_save(vessel, regs, to, from);
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
	rc = call_finish(vessel, &own, &result);
	if (rc < 0)
		return rc;
	if (grow ? result == (int64_t)from : result == 0) {
		rc = grow ? mapping_add(pager, from, to, PROT_READ | PROT_WRITE, 0) : mapping_drop(pager, to, from);
		vessel->brk_now = wanted;
	}
	/* The program's own argument registers come back; only the result is new. */
	arch_restore_arguments(&own, regs);
	return rc < 0 ? rc : set_result(vessel, &own, (int64_t)vessel->brk_now);
}
