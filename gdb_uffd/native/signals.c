#define _GNU_SOURCE
#include "signals.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "answer.h"
#include "policy.h"
#include "user_memory.h"
#include "vessel.h"

bool signals_mend(struct vessel *vessel, siginfo_t *info)
{
	const struct identity *record = &vessel->record;
	siginfo_t *sent = info->si_signo > 0 && info->si_signo <= SIGNALS ? &vessel->sent[info->si_signo - 1] : NULL;

	if (info->si_code != SI_USER && info->si_code != SI_TKILL)
		return false;
	if (info->si_pid == vessel->pid) {
		info->si_pid = record->pid;
		info->si_uid = record->uid;
		return true;
	}
	if (info->si_pid != getpid() || !sent || !sent->si_signo)
		return false;
	*info = *sent;
	sent->si_signo = 0;
	return true;
}

int signals_send(struct vessel *vessel, const siginfo_t *info)
{
	pid_t pid = vessel->pid;

	/* Whoever is not the receiver itself can only send what a program may make up: sigqueue(3), timers. */
	if (info->si_code < 0 && info->si_code != SI_TKILL)
		return syscall(SYS_rt_tgsigqueueinfo, pid, pid, info->si_signo, info) < 0 ? -errno : 0;
	vessel->sent[info->si_signo - 1] = *info;
	return kill(pid, info->si_signo) < 0 ? -errno : 0;
}

void signals_hold(struct vessel *vessel, int signal)
{
	siginfo_t info = {.si_signo = signal};

	if (signal < 1 || signal > SIGNALS)
		return;
	if (ptrace(PTRACE_GETSIGINFO, vessel->pid, NULL, &info) == 0)
		signals_mend(vessel, &info);
	vessel->held[signal - 1] = info;
	vessel->held_signals |= 1ull << (signal - 1);
}

void signals_release(struct vessel *vessel)
{
	for (int i = 0; i < SIGNALS; i++)
		if (vessel->held_signals >> i & 1)
			signals_send(vessel, &vessel->held[i]);
	vessel->held_signals = 0;
}

void signals_read(const struct vessel *vessel, struct signal_sets *sets)
{
	char path[64], line[256];
	uint64_t mask;

	*sets = (struct signal_sets){0};
	snprintf(path, sizeof(path), "/proc/%d/status", vessel->pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "SigPnd: %lx", &mask) == 1 || sscanf(line, "ShdPnd: %lx", &mask) == 1)
			sets->pending |= mask;
		if (sscanf(line, "SigBlk: %lx", &mask) == 1)
			sets->blocked = mask;
		if (sscanf(line, "SigCgt: %lx", &mask) == 1)
			sets->handled = mask;
		if (sscanf(line, "SigIgn: %lx", &mask) == 1)
			sets->ignored = mask;
	}
	fclose(file);
}

static int64_t taken(struct vessel *vessel, const struct system_call *call, int64_t result)
{
	siginfo_t info;

	if (result > 0 && user_load(vessel->pager, call->args[1], &info, sizeof(info)) == 0 &&
	    signals_mend(vessel, &info))
		user_store(vessel->pager, call->args[1], &info, sizeof(info));
	return result;
}

int64_t signals_take(struct vessel *vessel, const struct system_call *call)
{
	if (!call->args[1])
		return ANSWER_LET; /* nobody looks at it */
	vessel->redo = (struct redo){.call = *call, .finish = taken};
	return ANSWER_REDO;
}

/* signalfd(2): what read(2) returns. */
static int64_t taken_record(struct vessel *vessel, const struct system_call *call, int64_t result)
{
	struct signalfd_siginfo record = {0};
	siginfo_t info;

	if (result <= 0)
		return result;
	if (user_load(vessel->pager, call->args[1], &info, sizeof(info)) < 0)
		return -EFAULT;
	signals_mend(vessel, &info);
	record.ssi_signo = (uint32_t)info.si_signo;
	record.ssi_errno = info.si_errno;
	record.ssi_code = info.si_code;
	if (info.si_code == SI_TIMER) {
		record.ssi_tid = (uint32_t)info.si_timerid;
		record.ssi_overrun = (uint32_t)info.si_overrun;
	} else {
		record.ssi_pid = (uint32_t)info.si_pid;
		record.ssi_uid = info.si_uid;
	}
	if (info.si_code < 0) {
		record.ssi_int = info.si_int;
		record.ssi_ptr = (uint64_t)info.si_ptr;
	}
	int rc = user_store(vessel->pager, call->args[1], &record, sizeof(record));
	return rc < 0 ? rc : (int64_t)sizeof(record);
}

int64_t signals_take_record(struct vessel *vessel, const struct system_call *call, uint64_t set)
{
	uint8_t room[sizeof(struct signalfd_siginfo)] = {0};
	uint64_t at = call->args[1];

	_Static_assert(sizeof(siginfo_t) == sizeof(room), "one lies where the other goes");
	memcpy(room, &set, sizeof(set));
	if (user_store(vessel->pager, at, room, sizeof(room)) < 0)
		return -EFAULT;
	/* The kernel reads the set before it writes over it. */
	vessel->redo = (struct redo){
		.call = {.nr = SYS_rt_sigtimedwait, .args = {at, at, 0, sizeof(set)}},
		.finish = taken_record,
	};
	return ANSWER_REDO;
}

#define ANOTHER INT64_MIN /* a process that the recording does not know */

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
int signals_kill(struct vessel *vessel, struct registers *regs, struct run *run)
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
	return policy_call_with(vessel, regs, (unsigned long)vessel->pid, both ? (unsigned long)vessel->pid : ARGUMENT(regs, 1));
}
