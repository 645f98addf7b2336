/* call.c - the system call that the vessel stands at: made, not made, made otherwise, come back to. */
#define _GNU_SOURCE
#include "process/call.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "process/notify.h"
#include "process/task.h"
#include "process/vessel.h"

struct system_call call_of(const struct registers *regs, int table)
{
	return (struct system_call){
		.nr = NUMBER(regs),
		.args = {ARGUMENT(regs, 0), ARGUMENT(regs, 1), ARGUMENT(regs, 2), ARGUMENT(regs, 3), ARGUMENT(regs, 4), ARGUMENT(regs, 5)},
		.pc = PC(regs),
		.table = table,
	};
}

int call_skip(struct vessel *vessel, struct registers *regs, int64_t result)
{
	arch_skip_call(regs, result);
	return task_set_registers(vessel, regs);
}

void call_waits(struct vessel *vessel, struct run *run)
{
	run->end = vessel->pager->over_limit ? RUN_MEMORY : RUN_WAITING;
	run->signal = SIGTRAP;
	run->call = vessel->wait_call;
	run->address = vessel->wait_address;
}

int call_stand_before(struct vessel *vessel, struct registers *regs, struct run *run)
{
	arch_stand_before(regs, vessel->mode != RESUME_CONTINUE);
	run->pc = PC(regs);
	int rc = task_set_registers(vessel, regs);
	return rc < 0 ? rc : 1;
}

int call_stop_before(struct vessel *vessel, struct registers *regs, struct run *run)
{
	int rc = call_stand_before(vessel, regs, run);

	return rc < 0 ? rc : call_leave(vessel, run);
}

/* From the filter's event, or a system call's entry, to a stop by a signal.  At the event the kernel would still make the call that
 * the registers name when the vessel goes on, and asks the filter no second time where that says "trace"
 * (kernel/seccomp.c, recheck_after_trace): what is loaded later, the recorded registers say, would decide. */
int call_leave(struct vessel *vessel, struct run *run)
{
	int status;

	if (kill(vessel->pid, SIGSTOP) < 0)
		return fail(&vessel->error, errno, "stopping the vessel");
	for (;;) {
		if (ptrace(PTRACE_CONT, vessel->pid, NULL, NULL) < 0 && errno != ESRCH)
			return fail(&vessel->error, errno, "resuming the vessel");
		if (task_wait_stop(vessel, &status) < 0 || !WIFSTOPPED(status)) {
			run->end = RUN_GONE;
			run->status = SIGKILL;
			vessel->pid = 0;
			return 1;
		}
		if (WSTOPSIG(status) == SIGSTOP)
			break;
		if (!(status >> 16)) /* an event is no signal */
			signals_hold(vessel, WSTOPSIG(status));
	}
	/* One SIGSTOP stands for all that were under way. */
	vessel->stop_sent = vessel->stop_stale = false;
	signals_release(vessel);
	return 1;
}

static int finish(struct vessel *vessel, struct registers *regs, bool notified, int64_t *result)
{
	int status, rc = task_set_registers(vessel, regs);

	if (rc < 0)
		return rc;
	/* Signals wait for the way back to user mode, behind the exit stop. */
	do {
		if (ptrace(PTRACE_SYSCALL, vessel->pid, NULL, NULL) < 0)
			return -errno;
		rc = notified ? notify_let_one(vessel) : 0;
		notified = false;
		if (rc == 0)
			rc = task_wait_stop(vessel, &status);
		if (rc < 0)
			return rc;
	} while (WSTOPSIG(status) != (SIGTRAP | 0x80));
	vessel->at_exit = true;
	rc = task_get_registers(vessel, regs);
	*result = (int64_t)RESULT(regs);
	return rc;
}

int call_finish(struct vessel *vessel, struct registers *regs, int64_t *result)
{
	return finish(vessel, regs, false, result);
}

/* With at most four arguments. */
static int redo(struct vessel *vessel, struct registers *regs, bool notified)
{
	const struct redo redo = vessel->redo;
	const struct registers own = *regs;
	int64_t result;

	vessel->redo.finish = NULL;
	NUMBER(regs) = redo.call.nr;
	ARGUMENT(regs, 0) = redo.call.args[0];
	ARGUMENT(regs, 1) = redo.call.args[1];
	ARGUMENT(regs, 2) = redo.call.args[2];
	ARGUMENT(regs, 3) = redo.call.args[3];
	int rc = finish(vessel, regs, notified, &result);
	if (rc < 0)
		return rc;
	arch_restore_arguments(regs, &own);
	RESULT(regs) = (uint64_t)redo.finish(vessel, &redo.call, result);
	return task_set_registers(vessel, regs);
}

int call_redo(struct vessel *vessel, struct registers *regs)
{
	return redo(vessel, regs, false);
}

int call_redo_from(struct vessel *vessel, struct registers *regs)
{
	int status;

	do {
		if (ptrace(PTRACE_SYSCALL, vessel->pid, NULL, NULL) < 0 || task_wait_stop(vessel, &status) < 0)
			return fail(&vessel->error, ESRCH, "the vessel died before a system call");
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			signals_hold(vessel, WSTOPSIG(status));
	} while (WSTOPSIG(status) != (SIGTRAP | 0x80));
	int rc = task_get_registers(vessel, regs);
	return rc < 0 ? rc : redo(vessel, regs, vessel->listener >= 0);
}

int call_with(struct vessel *vessel, struct registers *regs, uint64_t first, uint64_t second)
{
	const struct registers own = *regs;
	int64_t result;

	vessel->kernel_changed = true;
	ARGUMENT(regs, 0) = first;
	ARGUMENT(regs, 1) = second;
	int rc = call_finish(vessel, regs, &result);
	if (rc < 0)
		return rc;
	arch_restore_arguments(regs, &own);
	return task_set_registers(vessel, regs);
}
