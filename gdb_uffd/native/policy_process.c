/* policy_process.c - system calls that name a process or a thread: the recorded one is the vessel, another is
 * refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "layout.h"
#include "policy.h"
#include "user_memory.h"
#include "vessel.h"

#define ANOTHER INT64_MIN /* a process that the recording does not know */

/* With registers changed for the kernel, and the program's own afterwards. */
static int call_with(struct vessel *vessel, struct registers *regs, uint64_t first, uint64_t second)
{
	const struct registers own = *regs;
	int64_t result;

	vessel->kernel_changed = true;
	ARGUMENT(regs, 0) = first;
	ARGUMENT(regs, 1) = second;
	int rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0)
		return rc;
	arch_restore_arguments(regs, &own);
	return vessel_set_registers(vessel, regs);
}

/* Signal 0 only asks whether there is somebody whom it could be sent to: the recorded threads are there. */
static int64_t ask(struct vessel *vessel, const struct registers *regs)
{
	uint64_t nr = (uint64_t)NUMBER(regs);
	bool both = nr == SYS_tgkill || nr == SYS_rt_tgsigqueueinfo;
	pid_t process = nr == SYS_tkill ? vessel->record.pid : (pid_t)ARGUMENT(regs, 0);
	pid_t target = (pid_t)(both ? ARGUMENT(regs, 1) : ARGUMENT(regs, 0));
	siginfo_t info;

	if (nr == SYS_rt_sigqueueinfo || nr == SYS_rt_tgsigqueueinfo) {
		uint64_t at = both ? ARGUMENT(regs, 3) : ARGUMENT(regs, 2);
		if (user_load(vessel->pager, at, &info, sizeof(info)) < 0)
			return -EFAULT;
		if ((info.si_code >= 0 || info.si_code == SI_TKILL) && target != vessel->record.tid)
			return -EPERM; /* only the kernel may say so (rt_sigqueueinfo(2)) */
	}
	if ((both || nr == SYS_tkill) && (process <= 0 || target <= 0))
		return -EINVAL;
	if (nr == SYS_kill && (target == 0 || target == -vessel->record.pgrp)) /* its own group */
		return 0;
	if (target == vessel->record.pid && (!both || process == target))
		return 0;
	if (process != vessel->record.pid && (both || !vessel_has_thread(vessel, target)))
		return ANOTHER;
	return vessel_has_thread(vessel, target) ? 0 : -ESRCH;
}

static int answer_probe(struct vessel *vessel, struct registers *regs)
{
	int64_t result = ask(vessel, regs);

	return result == ANOTHER ? policy_refuse(vessel, regs, EPERM) : policy_skip(vessel, regs, result);
}

/* A signal to itself goes to the vessel; to anybody else it is refused: the recorded PID may be
 * a live process by now. */
int policy_signal(struct vessel *vessel, struct registers *regs, struct run *run)
{
	pid_t first = (pid_t)ARGUMENT(regs, 0), second = (pid_t)ARGUMENT(regs, 1);
	bool both = NUMBER(regs) == SYS_tgkill || NUMBER(regs) == SYS_rt_tgsigqueueinfo;
	int signal = (int)(both ? ARGUMENT(regs, 2) : ARGUMENT(regs, 1));
	bool self;

	if (!signal)
		return answer_probe(vessel, regs);
	if (both)
		self = first == vessel->record.pid && second == vessel->record.tid;
	else
		self = first == (NUMBER(regs) == SYS_tkill ? vessel->record.tid : vessel->record.pid);
	if (!self)
		return policy_refuse(vessel, regs, EPERM);
	if (signal == SIGKILL || signal == SIGSTOP) {
		run->end = RUN_KILLING;
		run->status = signal;
		return policy_stop_before(vessel, regs, run);
	}
	return call_with(vessel, regs, (unsigned long)vessel->pid, both ? (unsigned long)vessel->pid : ARGUMENT(regs, 1));
}

/* Calls that name a process: itself by its recorded PID is 0; another one is refused. */
int policy_about_self(struct vessel *vessel, struct registers *regs)
{
	pid_t who = (pid_t)ARGUMENT(regs, 0);

	if (who && who != vessel->record.pid && who != vessel->record.tid)
		return policy_refuse(vessel, regs, EPERM);
	return call_with(vessel, regs, 0, ARGUMENT(regs, 1));
}
