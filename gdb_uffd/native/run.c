/* run.c - letting the vessel run, and why it stopped. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user_memory.h"
#include "vessel.h"

#ifndef PTRACE_SETSIGMASK
#define PTRACE_SETSIGMASK 0x420b /* <linux/ptrace.h> */
#endif
#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#endif

/* vessel, pager and tracer on one CPU: a wake-up across CPUs costs an order more (a VM's IPI). */
void vessel_share_cpu(struct vessel *vessel)
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

void vessel_leave_cpu(struct vessel *vessel)
{
	if (vessel->shares_cpu)
		sched_setaffinity(0, sizeof(vessel->allowed), &vessel->allowed);
	vessel->shares_cpu = false;
}

int vessel_get_registers(struct vessel *vessel, struct registers *regs)
{
	int rc = arch_get_registers(vessel->pid, regs);

	return rc < 0 ? fail(&vessel->error, -rc, "reading the vessel's registers") : 0;
}

int vessel_set_registers(struct vessel *vessel, const struct registers *regs)
{
	int rc = arch_set_registers(vessel->pid, regs);

	return rc < 0 ? fail(&vessel->error, -rc, "the recorded registers cannot be set") : 0;
}

int vessel_get_regset(struct vessel *vessel, uint64_t kind, void *buffer, size_t room)
{
	struct iovec io = {buffer, room};

	if (ptrace(PTRACE_GETREGSET, vessel->pid, kind, &io) < 0)
		return fail(&vessel->error, errno, "reading the vessel's extended state");
	return (int)io.iov_len;
}

int vessel_set_regset(struct vessel *vessel, uint64_t kind, const void *buffer, size_t len)
{
	struct iovec io = {(void *)buffer, len};

	if (ptrace(PTRACE_SETREGSET, vessel->pid, kind, &io) < 0)
		return fail(&vessel->error, errno, "the recorded extended state cannot be set");
	return 0;
}

int vessel_set_sigmask(struct vessel *vessel, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, vessel->pid, sizeof(mask), &mask) < 0)
		return fail(&vessel->error, errno, "setting the signal mask");
	return 0;
}

int vessel_get_sigmask(struct vessel *vessel, uint64_t *mask)
{
	if (ptrace(PTRACE_GETSIGMASK, vessel->pid, sizeof(*mask), mask) < 0)
		return fail(&vessel->error, errno, "reading the signal mask");
	return 0;
}

bool vessel_is_alive(struct vessel *vessel)
{
	siginfo_t info = {.si_pid = 0};

	if (vessel->pid <= 0)
		return false;
	return waitid(P_PID, (id_t)vessel->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0;
}

int vessel_set_siginfo(struct vessel *vessel, const uint8_t *siginfo)
{
	if (ptrace(PTRACE_SETSIGINFO, vessel->pid, NULL, siginfo) < 0)
		return fail(&vessel->error, errno, "setting the signal information");
	return 0;
}

int vessel_set_debug(struct vessel *vessel, const struct debug_slot *slots, size_t count)
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

int vessel_debug_hits(struct vessel *vessel)
{
	int rc = arch_debug_hits(vessel->pid, vessel->slots, vessel->slot_count);

	return rc < 0 ? fail(&vessel->error, -rc, "debug registers") : rc;
}

int vessel_interrupt(struct vessel *vessel)
{
	vessel->stop_stale = false;
	vessel->stop_asked_ns = 0;
	if (vessel->stop_sent)
		return 0;
	vessel->stop_sent = true;
	return kill(vessel->pid, SIGSTOP) < 0 ? -errno : 0;
}

bool vessel_signal_is_fatal(struct vessel *vessel, int signal)
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
	FILE *file = fopen(path, "re");
	if (!file)
		return true;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "SigCgt: %lx", &mask) == 1 || sscanf(line, "SigIgn: %lx", &mask) == 1)
			handled |= mask;
	fclose(file);
	return !(handled >> (signal - 1) & 1);
}

static int let_go(struct vessel *vessel, int signal)
{
	/* A watched object may be written by the kernel, or calls are caught: they are looked at. */
	int through = vessel->pager->watch.end || vessel->catching.on ? PTRACE_SYSCALL : PTRACE_CONT;
	int request = vessel->mode == RESUME_CONTINUE ? through : PTRACE_SINGLESTEP;
	int rc = engine_about_to_run(vessel->pager);

	if (rc < 0)
		return fail(&vessel->error, -rc, "preparing to see what is written");
	if (ptrace(request, vessel->pid, NULL, signal) < 0)
		return errno == ESRCH ? 0 : fail(&vessel->error, errno, "resuming the vessel");
	return 0;
}

int vessel_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high)
{
	vessel->mode = mode;
	vessel->range_low = low;
	vessel->range_high = high;
	vessel->stop_stale = vessel->stop_sent;
	vessel->pager->over_limit = vessel->timed_out = false;
	vessel_share_cpu(vessel);
	if (signal && vessel->pager->user_mode_only && !vessel_signal_is_fatal(vessel, signal))
		user_prepare_stack(vessel);
	if (watch_note_mask(vessel) < 0 || catch_begin(vessel) < 0)
		return -ESRCH;
	return let_go(vessel, signal);
}

int vessel_step_over(struct vessel *vessel, uint64_t address)
{
	int status, rc = pager_plant(vessel->pager, address, false);

	if (rc == 0)
		rc = engine_about_to_run(vessel->pager);
	if (rc < 0)
		return fail(&vessel->error, -rc, "taking out a breakpoint");
	if (ptrace(PTRACE_SINGLESTEP, vessel->pid, NULL, NULL) < 0 || vessel_wait_stop(vessel, &status) < 0)
		return 0; /* it was killed: whoever resumes it will see */
	if (status >> 8 == SIGTRAP)
		return pager_plant(vessel->pager, address, true);
	/* A fault, or a request to stop: it comes again, and the breakpoint stays out. */
	if (WSTOPSIG(status) == SIGSTOP)
		kill(vessel->pid, SIGSTOP);
	return 0;
}

static int program_counter(struct vessel *vessel, uint64_t *pc)
{
	return arch_get_pc(vessel->pid, pc);
}

/* A range step goes on while the thread is inside the range (gdb manual, "vCont", r). */
static bool step_goes_on(struct vessel *vessel, const struct run *run)
{
	if (vessel->slot_count && vessel_debug_hits(vessel)) /* a watchpoint, or an error */
		return false;
	return vessel->mode == RESUME_RANGE && run->pc >= vessel->range_low && run->pc < vessel->range_high;
}

/* A page that could not be had where pages cannot be poisoned: the stop is the fault's. */
static bool faulted(struct vessel *vessel, struct run *run)
{
	struct pager *pager = vessel->pager;
	siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_ADRERR};

	if (run->signal != SIGSTOP || !pager->fault_address)
		return false;
	info.si_addr = (void *)pager->fault_address;
	pager->fault_address = 0;
	vessel->stop_sent = vessel->stop_stale = false; /* two SIGSTOPs are one */
	run->signal = SIGBUS;
	memcpy(run->siginfo, &info, sizeof(info));
	return program_counter(vessel, &run->pc) == 0;
}

/* The pager has stopped the vessel before a write to a watched page. */
static int watched_write(struct vessel *vessel, struct run *run)
{
	int rc = program_counter(vessel, &run->pc);

	if (rc == 0)
		rc = watch_step(vessel, run);
	if (rc || vessel->mode == RESUME_CONTINUE)
		return rc ? rc : let_go(vessel, 0);
	/* Beside the object.  The step that was asked for is complete. */
	rc = program_counter(vessel, &run->pc);
	if (rc < 0 || step_goes_on(vessel, run))
		return rc < 0 ? rc : let_go(vessel, 0);
	run->end = RUN_STOPPED;
	return 1;
}

/* At the exit of a call that was made for the program: 1 when that is a stop of its own. */
static int behind_call(struct vessel *vessel, struct run *run)
{
	int rc;

	if (vessel->mode != RESUME_CONTINUE) {
		/* The step over the instruction is complete: the call was made already. */
		if (program_counter(vessel, &run->pc) < 0)
			return -ESRCH;
		if (!step_goes_on(vessel, run)) {
			run->end = RUN_STOPPED;
			run->signal = SIGTRAP;
			run->stepped = true;
			return CALL_STOP_IS_WHOLE ? 1 : vessel_leave_event(vessel, run);
		}
	}
	rc = vessel->pager->watch.end ? watch_look(vessel, run) : 0;
	if (rc == 1 && !CALL_STOP_IS_WHOLE)
		return vessel_leave_event(vessel, run);
	if (rc)
		return rc;
	return vessel->mode == RESUME_CONTINUE ? catch_return(vessel, run) : 0;
}

/* Back before the call that would wait for ever, now that the vessel has come out of it. */
static int stopped_waiting(struct vessel *vessel, int status, struct run *run)
{
	struct registers regs;

	if (WSTOPSIG(status) == SIGTRAP) /* a step is complete as well */
		return watch_mend_mask(vessel) < 0 ? -ESRCH : let_go(vessel, 0);
	if (WSTOPSIG(status) != SIGSTOP) { /* its turn comes when the vessel goes on */
		signals_hold(vessel, WSTOPSIG(status));
		return let_go(vessel, 0);
	}
	vessel->waiting = vessel->stop_sent = vessel->stop_stale = false;
	int rc = vessel_get_registers(vessel, &regs);
	if (rc < 0)
		return rc;
	/* The kernel may have gone back to the instruction, and has put its answer somewhere. */
	NUMBER(&regs) = (uint64_t)vessel->wait_call;
	PC(&regs) = vessel->wait_pc;
	ARGUMENT(&regs, 0) = vessel->wait_first;
	if (!vessel->redo.finish)
		policy_waits(vessel, run);
	rc = policy_stand_before(vessel, &regs, run);
	if (rc == 1 && vessel->redo.finish) {
		rc = policy_redo_from(vessel, &regs);
		if (rc == 0)
			rc = behind_call(vessel, run);
	}
	signals_release(vessel);
	return rc ? rc : let_go(vessel, 0);
}

int vessel_digest(struct vessel *vessel, int status, struct run *run)
{
	int rc;

	pager_settle(vessel->pager);
	vessel->at_exit = false;
	if (!WIFSTOPPED(status)) {
		run->end = vessel->pager->failure ? RUN_FAILED : RUN_GONE;
		run->status = vessel->pager->failure ? vessel->pager->failure : status;
		run->address = vessel->pager->failure_page;
		vessel->pid = 0;
		return 1;
	}
	if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
		unsigned long data = 0;
		ptrace(PTRACE_GETEVENTMSG, vessel->pid, NULL, &data);
		rc = policy_traced(vessel, data, run);
		if (rc < 0)
			return rc;
		if (rc == 1) {
			run->signal = SIGTRAP;
			return 1;
		}
		rc = vessel->at_exit ? behind_call(vessel, run) : 0;
		return rc ? rc : let_go(vessel, 0);
	}
	if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
		rc = vessel->pager->watch.end ? watch_system_call(vessel, run) : 0;
		if (rc == 0)
			rc = catch_call(vessel, run);
		return rc ? rc : let_go(vessel, 0);
	}
	if (vessel->waiting)
		return stopped_waiting(vessel, status, run);
	run->end = RUN_STOPPED;
	run->signal = WSTOPSIG(status) & 0x7f;
	if (faulted(vessel, run))
		return 1;
	if (run->signal == SIGTRAP && watch_mend_mask(vessel) < 0)
		return -ESRCH;
	if (run->signal == SIGSTOP && vessel->pager->watch.hit_page)
		return watched_write(vessel, run);
	if (run->signal == SIGSTOP && vessel->pager->failure) {
		run->end = RUN_FAILED;
		run->status = vessel->pager->failure;
		run->address = vessel->pager->failure_page;
		vessel->pager->failure = 0;
		vessel->stop_sent = vessel->stop_stale = false;
	} else if (run->signal == SIGSTOP && vessel->pager->over_limit) {
		run->end = RUN_MEMORY;
	} else if (run->signal == SIGSTOP && vessel->stop_sent) {
		bool stale = vessel->stop_stale;
		vessel->stop_sent = vessel->stop_stale = false;
		if (stale)
			return let_go(vessel, 0);
		run->interrupted = true;
		if (vessel->timed_out)
			run->end = RUN_TIMEOUT;
	}
	if (program_counter(vessel, &run->pc) < 0)
		return -ESRCH;
	if (ptrace(PTRACE_GETSIGINFO, vessel->pid, NULL, run->siginfo) < 0)
		memset(run->siginfo, 0, sizeof(run->siginfo));
	siginfo_t *info = (siginfo_t *)run->siginfo;
	if (signals_mend(vessel, info))
		ptrace(PTRACE_SETSIGINFO, vessel->pid, NULL, info);
	run->stepped = run->signal == SIGTRAP && arch_is_step(info);
	if (run->stepped && step_goes_on(vessel, run)) {
		rc = watch_look(vessel, run);
		return rc ? rc : let_go(vessel, 0);
	}
	return 1;
}
