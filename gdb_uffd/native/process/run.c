/* run.c - letting the vessel run, and why it stopped. */
#define _GNU_SOURCE
#include "process/run.h"

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

#include "pager/breakpoints.h"
#include "process/call.h"
#include "process/task.h"
#include "process/user.h"
#include "process/vessel.h"
#include "process/watched.h"

static int let_go(struct vessel *vessel, int signal)
{
	/* A watched object may be written by the kernel, or calls are caught: they are looked at. */
	int through = vessel->pager->watch.end || vessel->catching.on ? PTRACE_SYSCALL : PTRACE_CONT;
	int request = vessel->mode == RESUME_CONTINUE ? through : PTRACE_SINGLESTEP;
	int rc = tracker_about_to_run(vessel->pager);

	if (rc < 0)
		return fail(&vessel->error, -rc, "preparing to see what is written");
	if (ptrace(request, vessel->pid, NULL, signal) < 0)
		return errno == ESRCH ? 0 : fail(&vessel->error, errno, "resuming the vessel");
	return 0;
}

int run_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high)
{
	vessel->mode = mode;
	vessel->range_low = low;
	vessel->range_high = high;
	vessel->stop_stale = vessel->stop_sent;
	vessel->pager->over_limit = vessel->timed_out = false;
	task_share_cpu(vessel);
	if (signal && vessel->pager->user_mode_only && !task_signal_is_fatal(vessel, signal))
		user_prepare_stack(vessel);
	if (watched_note_mask(vessel) < 0 || catch_begin(vessel) < 0)
		return -ESRCH;
	return let_go(vessel, signal);
}

int run_step_over(struct vessel *vessel, uint64_t address)
{
	int status, rc = breakpoint_put(vessel->pager, address, false);

	if (rc == 0)
		rc = tracker_about_to_run(vessel->pager);
	if (rc < 0)
		return fail(&vessel->error, -rc, "taking out a breakpoint");
	if (ptrace(PTRACE_SINGLESTEP, vessel->pid, NULL, NULL) < 0 || task_wait_stop(vessel, &status) < 0)
		return 0; /* it was killed: whoever resumes it will see */
	if (status >> 8 == SIGTRAP)
		return breakpoint_put(vessel->pager, address, true);
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
	if (vessel->slot_count && task_debug_hits(vessel)) /* a watchpoint, or an error */
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
		rc = watched_step(vessel, run);
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
			return CALL_STOP_IS_WHOLE ? 1 : call_leave(vessel, run);
		}
	}
	rc = vessel->pager->watch.end ? watched_look(vessel, run) : 0;
	if (rc == 1 && !CALL_STOP_IS_WHOLE)
		return call_leave(vessel, run);
	if (rc)
		return rc;
	return vessel->mode == RESUME_CONTINUE ? catch_return(vessel, run) : 0;
}

/* Back before the call that would wait for ever, now that the vessel has come out of it. */
static int stopped_waiting(struct vessel *vessel, int status, struct run *run)
{
	struct registers regs;

	if (WSTOPSIG(status) == SIGTRAP) /* a step is complete as well */
		return watched_mend_mask(vessel) < 0 ? -ESRCH : let_go(vessel, 0);
	if (WSTOPSIG(status) != SIGSTOP) { /* its turn comes when the vessel goes on */
		signals_hold(vessel, WSTOPSIG(status));
		return let_go(vessel, 0);
	}
	vessel->waiting = vessel->stop_sent = vessel->stop_stale = false;
	int rc = task_get_registers(vessel, &regs);
	if (rc < 0)
		return rc;
	/* The kernel may have gone back to the instruction, and has put its answer somewhere. */
	NUMBER(&regs) = (uint64_t)vessel->wait_call;
	PC(&regs) = vessel->wait_pc;
	ARGUMENT(&regs, 0) = vessel->wait_first;
	if (!vessel->redo.finish)
		call_waits(vessel, run);
	rc = call_stand_before(vessel, &regs, run);
	if (rc == 1 && vessel->redo.finish) {
		rc = call_redo_from(vessel, &regs);
		if (rc == 0)
			rc = behind_call(vessel, run);
	}
	signals_release(vessel);
	return rc ? rc : let_go(vessel, 0);
}

static int gone(struct vessel *vessel, int status, struct run *run)
{
	int failure = vessel->pager->failure;

	run->end = failure ? RUN_FAILED : RUN_GONE;
	run->status = failure ? failure : status;
	run->address = vessel->pager->failure_page;
	vessel->pid = 0;
	return 1;
}

/* At the filter's event. */
static int at_event(struct vessel *vessel, struct run *run)
{
	unsigned long data = 0;

	ptrace(PTRACE_GETEVENTMSG, vessel->pid, NULL, &data);
	int rc = vessel->handlers->traced(vessel, data, run);
	if (rc == 1)
		run->signal = SIGTRAP;
	else if (rc == 0 && vessel->at_exit)
		rc = behind_call(vessel, run);
	return rc ? rc : let_go(vessel, 0);
}

/* Beside a system call: something is watched, or calls are caught. */
static int at_call(struct vessel *vessel, struct run *run)
{
	int rc = vessel->pager->watch.end ? watched_call(vessel, run) : 0;

	if (rc == 0)
		rc = catch_call(vessel, run);
	return rc ? rc : let_go(vessel, 0);
}

/* A SIGSTOP: whose?  1: the vessel runs on. */
static int stopped(struct vessel *vessel, struct run *run)
{
	struct pager *pager = vessel->pager;

	if (pager->failure) {
		run->end = RUN_FAILED;
		run->status = pager->failure;
		run->address = pager->failure_page;
		pager->failure = 0;
		vessel->stop_sent = vessel->stop_stale = false;
	} else if (pager->over_limit) {
		run->end = RUN_MEMORY;
	} else if (vessel->stop_sent) {
		bool stale = vessel->stop_stale;
		vessel->stop_sent = vessel->stop_stale = false;
		if (stale)
			return 1;
		run->interrupted = true;
		if (vessel->timed_out)
			run->end = RUN_TIMEOUT;
	}
	return 0;
}

static int tell_signal(struct vessel *vessel, struct run *run)
{
	siginfo_t *info = (siginfo_t *)run->siginfo;

	if (program_counter(vessel, &run->pc) < 0)
		return -ESRCH;
	if (ptrace(PTRACE_GETSIGINFO, vessel->pid, NULL, run->siginfo) < 0)
		memset(run->siginfo, 0, sizeof(run->siginfo));
	if (signals_mend(vessel, info))
		ptrace(PTRACE_SETSIGINFO, vessel->pid, NULL, info);
	run->stepped = run->signal == SIGTRAP && arch_is_step(info);
	if (!run->stepped || !step_goes_on(vessel, run))
		return 1;
	int rc = watched_look(vessel, run);
	return rc ? rc : let_go(vessel, 0);
}

int run_digest(struct vessel *vessel, int status, struct run *run)
{
	pager_settle(vessel->pager);
	vessel->at_exit = false;
	if (!WIFSTOPPED(status))
		return gone(vessel, status, run);
	if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
		return at_event(vessel, run);
	if (WSTOPSIG(status) == (SIGTRAP | 0x80))
		return at_call(vessel, run);
	if (vessel->waiting)
		return stopped_waiting(vessel, status, run);
	run->end = RUN_STOPPED;
	run->signal = WSTOPSIG(status) & 0x7f;
	if (faulted(vessel, run))
		return 1;
	if (run->signal == SIGTRAP && watched_mend_mask(vessel) < 0)
		return -ESRCH;
	if (run->signal == SIGSTOP && vessel->pager->watch.hit_page)
		return watched_write(vessel, run);
	if (run->signal == SIGSTOP && stopped(vessel, run))
		return let_go(vessel, 0);
	return tell_signal(vessel, run);
}
