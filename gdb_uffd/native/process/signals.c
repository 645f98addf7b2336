#define _GNU_SOURCE
#include "process/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/cleanup.h"
#include "process/vessel.h"

bool signals_mend(struct vessel *vessel, siginfo_t *info)
{
	const struct identity *identity = &vessel->identity;
	siginfo_t *sent = info->si_signo > 0 && info->si_signo <= SIGNALS ? &vessel->sent[info->si_signo - 1] : NULL;

	if (info->si_code != SI_USER && info->si_code != SI_TKILL)
		return false;
	if (info->si_pid == vessel->pid) {
		info->si_pid = identity->pid;
		info->si_uid = identity->uid;
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
	FCLOSED FILE *file = fopen(path, "re");
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
}

