/* task.c - the vessel as a traced task: its registers, its signals, its stops. */
#define _GNU_SOURCE
#include "process/task.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kernel/cleanup.h"
#include "process/vessel.h"

#ifndef PTRACE_SETSIGMASK
#define PTRACE_SETSIGMASK 0x420b /* <linux/ptrace.h> */
#endif
#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#endif

int task_wait_stop(struct vessel *vessel, int *status)
{
	for (;;) {
		pid_t got = waitpid(vessel->pid, status, __WALL);
		if (got == vessel->pid) {
			pager_settle(vessel->pager);
			if (WIFSTOPPED(*status))
				return 0;
			vessel->pid = 0; /* reaped: the number is not ours any more */
			return -ESRCH;
		}
		if (got < 0 && errno != EINTR)
			return -errno;
	}
}

/* vessel, pager and tracer on one CPU: a wake-up across CPUs costs an order more (a VM's IPI). */
void task_share_cpu(struct vessel *vessel)
{
	int cpu = sched_getcpu();
	cpu_set_t one;

	if (vessel->shares_cpu)
		return;
	CPU_ZERO(&vessel->allowed);
	if (cpu < 0 || sched_getaffinity(0, sizeof(vessel->allowed), &vessel->allowed) < 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
	if (vessel->pid && vessel->cpu != cpu) {
		sched_setaffinity(vessel->pid, sizeof(one), &one);
		vessel->cpu = cpu;
	}
	pager_pin(vessel->pager, cpu);
	vessel->shares_cpu = true;
}

void task_leave_cpu(struct vessel *vessel)
{
	if (vessel->shares_cpu)
		sched_setaffinity(0, sizeof(vessel->allowed), &vessel->allowed);
	vessel->shares_cpu = false;
}

int task_get_registers(struct vessel *vessel, struct registers *regs)
{
	int rc = arch_get_registers(vessel->pid, regs);

	return rc < 0 ? fail(&vessel->error, -rc, "reading the vessel's registers") : 0;
}

int task_set_registers(struct vessel *vessel, const struct registers *regs)
{
	int rc = arch_set_registers(vessel->pid, regs);

	return rc < 0 ? fail(&vessel->error, -rc, "the recorded registers cannot be set") : 0;
}

int task_get_regset(struct vessel *vessel, uint64_t kind, void *buffer, size_t room)
{
	struct iovec io = {buffer, room};

	if (ptrace(PTRACE_GETREGSET, vessel->pid, kind, &io) < 0)
		return fail(&vessel->error, errno, "reading the vessel's extended state");
	return (int)io.iov_len;
}

int task_set_regset(struct vessel *vessel, uint64_t kind, const void *buffer, size_t len)
{
	struct iovec io = {(void *)buffer, len};

	if (ptrace(PTRACE_SETREGSET, vessel->pid, kind, &io) < 0)
		return fail(&vessel->error, errno, "the recorded extended state cannot be set");
	return 0;
}

int task_set_sigmask(struct vessel *vessel, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, vessel->pid, sizeof(mask), &mask) < 0)
		return fail(&vessel->error, errno, "setting the signal mask");
	return 0;
}

int task_get_sigmask(struct vessel *vessel, uint64_t *mask)
{
	if (ptrace(PTRACE_GETSIGMASK, vessel->pid, sizeof(*mask), mask) < 0)
		return fail(&vessel->error, errno, "reading the signal mask");
	return 0;
}

bool task_is_alive(struct vessel *vessel)
{
	siginfo_t info = {.si_pid = 0};

	if (vessel->pid <= 0)
		return false;
	return waitid(P_PID, (id_t)vessel->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0;
}

void task_await_death(struct vessel *vessel)
{
	struct pollfd ended = {.fd = vessel->pidfd, .events = POLLIN};

	if (vessel->pid > 0 && vessel->pidfd >= 0)
		poll(&ended, 1, 1000);
}

int task_set_siginfo(struct vessel *vessel, const uint8_t *siginfo)
{
	if (ptrace(PTRACE_SETSIGINFO, vessel->pid, NULL, siginfo) < 0)
		return fail(&vessel->error, errno, "setting the signal information");
	return 0;
}

int task_set_debug(struct vessel *vessel, const struct debug_slot *slots, size_t count)
{
	bool same = count == vessel->slot_count && memcmp(slots, vessel->slots, count * sizeof(*slots)) == 0;

	vessel->slot_count = 0; /* until all of it holds */
	int rc = same ? arch_forget_hits(vessel->pid) : arch_set_debug(vessel->pid, slots, count);

	if (rc < 0)
		return fail(&vessel->error, -rc, "debug registers");
	if (count)
		memcpy(vessel->slots, slots, count * sizeof(*slots));
	vessel->slot_count = count;
	return 0;
}

int task_debug_hits(struct vessel *vessel)
{
	int rc = arch_debug_hits(vessel->pid, vessel->slots, vessel->slot_count);

	return rc < 0 ? fail(&vessel->error, -rc, "debug registers") : rc;
}

int task_interrupt(struct vessel *vessel)
{
	vessel->stop_stale = false;
	vessel->stop_asked_ns = 0;
	if (vessel->stop_sent)
		return 0;
	vessel->stop_sent = true;
	return kill(vessel->pid, SIGSTOP) < 0 ? -errno : 0;
}

bool task_signal_is_fatal(struct vessel *vessel, int signal)
{
	char path[64], line[256];
	uint64_t handled = 0, mask;

	/* Ignored by default (signal(7)), or stopping: not fatal. */
	switch (signal) {
	case 0:
	case SIGCHLD:
	case SIGURG:
	case SIGWINCH:
	case SIGCONT:
	case SIGSTOP:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
		return false;
	case SIGKILL:
		return true;
	}
	snprintf(path, sizeof(path), "/proc/%d/status", vessel->pid);
	FCLOSED FILE *file = fopen(path, "re");
	if (!file)
		return true;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "SigCgt: %lx", &mask) == 1 || sscanf(line, "SigIgn: %lx", &mask) == 1)
			handled |= mask;
	return !(handled >> (signal - 1) & 1);
}
