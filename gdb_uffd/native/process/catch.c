#define _GNU_SOURCE
#include "process/catch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>

#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"

void catch_nothing(struct vessel *vessel)
{
	vessel->catching.on = vessel->catching.all = false;
	memset(vessel->catching.wanted, 0, sizeof(vessel->catching.wanted));
}

void catch_everything(struct vessel *vessel)
{
	vessel->catching.on = vessel->catching.all = true;
}

void catch_one(struct vessel *vessel, uint64_t nr)
{
	if (nr < CATCH_CALLS)
		vessel->catching.wanted[nr / 64] |= 1ull << nr % 64;
	vessel->catching.on = true;
}

static bool is_wanted(const struct catching *catching, int64_t nr)
{
	if (!catching->on || nr < 0)
		return false;
	return catching->all || (nr < CATCH_CALLS && catching->wanted[nr / 64] >> nr % 64 & 1);
}

bool catch_is_entry(pid_t pid)
{
	struct __ptrace_syscall_info info = {.op = PTRACE_SYSCALL_INFO_NONE};

	return ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

int catch_begin(struct vessel *vessel)
{
	struct catching *catching = &vessel->catching;
	uint64_t pc;

	catching->told = false;
	if (!catching->told_pc)
		return 0;
	if (arch_get_pc(vessel->pid, &pc) < 0)
		return -ESRCH;
	if (pc == catching->told_pc) {
		catching->told = true;
		catching->told_pc = 0;
	}
	return 0;
}

static int tell(struct vessel *vessel, struct run *run, bool entry)
{
	run->end = RUN_CALL;
	run->signal = SIGTRAP;
	run->call = vessel->catching.call;
	run->entry = entry;
	return arch_get_pc(vessel->pid, &run->pc) < 0 ? -ESRCH : 1;
}

/* The call is taken back: whatever registers are loaded now, no call is under way, and the policy
 * decides about this one when the vessel goes on. */
static int stand_before(struct vessel *vessel, struct registers *regs, struct run *run)
{
	int rc = call_stand_before(vessel, regs, run);

	if (rc == 1)
		rc = call_leave(vessel, run);
	if (rc < 0 || run->end == RUN_GONE)
		return rc;
	rc = tell(vessel, run, true);
	vessel->catching.told_pc = run->pc;
	return rc;
}

int catch_call(struct vessel *vessel, struct run *run)
{
	struct catching *catching = &vessel->catching;
	struct registers regs;

	if (!catching->on || vessel->waiting)
		return 0;
	if (!catch_is_entry(vessel->pid))
		return catch_return(vessel, run);
	int rc = task_get_registers(vessel, &regs);
	if (rc < 0)
		return rc;
	bool told = catching->told;
	catching->told = false;
	catching->call = (int64_t)NUMBER(&regs);
	return told || !is_wanted(catching, catching->call) ? 0 : stand_before(vessel, &regs, run);
}

int catch_return(struct vessel *vessel, struct run *run)
{
	if (!is_wanted(&vessel->catching, vessel->catching.call))
		return 0;
	int rc = tell(vessel, run, false);
	return rc < 0 || CALL_STOP_IS_WHOLE ? rc : call_leave(vessel, run);
}
