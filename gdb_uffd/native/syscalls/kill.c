/* kill.c - kill(2), tgkill(2), rt_sigqueueinfo(2) and their kin. */
#define _GNU_SOURCE
#include "syscalls/kill.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "process/call.h"
#include "process/user.h"
#include "process/vessel.h"
#include "syscalls/refuse.h"

#define ANOTHER INT64_MIN /* a process that the recording does not know */

/* Signal 0 only asks whether there is somebody whom it could be sent to: the recorded threads are there. */
static int64_t ask(struct vessel *vessel, const struct registers *regs)
{
	uint64_t nr = (uint64_t)NUMBER(regs);
	bool both = nr == SYS_tgkill || nr == SYS_rt_tgsigqueueinfo;
	pid_t process = nr == SYS_tkill ? vessel->identity.pid : (pid_t)ARGUMENT(regs, 0);
	pid_t target = (pid_t)(both ? ARGUMENT(regs, 1) : ARGUMENT(regs, 0));
	siginfo_t info;

	if (nr == SYS_rt_sigqueueinfo || nr == SYS_rt_tgsigqueueinfo) {
		uint64_t at = both ? ARGUMENT(regs, 3) : ARGUMENT(regs, 2);
		if (user_load(vessel->pager, at, &info, sizeof(info)) < 0)
			return -EFAULT;
		if ((info.si_code >= 0 || info.si_code == SI_TKILL) && target != vessel->identity.tid)
			return -EPERM; /* only the kernel may say so (rt_sigqueueinfo(2)) */
	}
	if ((both || nr == SYS_tkill) && (process <= 0 || target <= 0))
		return -EINVAL;
	if (nr == SYS_kill && (target == 0 || target == -vessel->identity.pgrp)) /* its own group */
		return 0;
	if (target == vessel->identity.pid && (!both || process == target))
		return 0;
	if (process != vessel->identity.pid && (both || !vessel_has_thread(vessel, target)))
		return ANOTHER;
	return vessel_has_thread(vessel, target) ? 0 : -ESRCH;
}

static int answer_probe(struct vessel *vessel, struct registers *regs)
{
	int64_t result = ask(vessel, regs);

	return result == ANOTHER ? refuse_call(vessel, regs, EPERM) : call_skip(vessel, regs, result);
}

/* A signal to itself goes to the vessel; to anybody else it is refused: the recorded PID may be
 * a live process by now. */
int kill_signal(struct vessel *vessel, struct registers *regs, struct run *run)
{
	pid_t first = (pid_t)ARGUMENT(regs, 0), second = (pid_t)ARGUMENT(regs, 1);
	bool both = NUMBER(regs) == SYS_tgkill || NUMBER(regs) == SYS_rt_tgsigqueueinfo;
	int signal = (int)(both ? ARGUMENT(regs, 2) : ARGUMENT(regs, 1));
	bool self;

	if (!signal)
		return answer_probe(vessel, regs);
	if (both)
		self = first == vessel->identity.pid && second == vessel->identity.tid;
	else
		self = first == (NUMBER(regs) == SYS_tkill ? vessel->identity.tid : vessel->identity.pid);
	if (!self)
		return refuse_call(vessel, regs, EPERM);
	if (signal == SIGKILL || signal == SIGSTOP) {
		run->end = RUN_KILLING;
		run->status = signal;
		return call_stop_before(vessel, regs, run);
	}
	return call_with(vessel, regs, (unsigned long)vessel->pid, both ? (unsigned long)vessel->pid : ARGUMENT(regs, 1));
}
