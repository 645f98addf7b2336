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
