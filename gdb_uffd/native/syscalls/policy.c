/* policy.c - the system calls that are decided one by one: changes of the address
 * space, signals, the end of the process, and what names another process. */
#define _GNU_SOURCE
#include "syscalls/policy.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>

#include "process/account.h"
#include "process/call.h"
#include "process/task.h"
#include "process/timers.h"
#include "process/user.h"
#include "process/vessel.h"
#include "syscalls/answer.h"
#include "syscalls/kill.h"
#include "syscalls/mapping.h"
#include "syscalls/refuse.h"

/* Where the program left its alternate signal stack: the kernel will write there. */
static void note_alternate(struct vessel *vessel, const struct system_call *call)
{
	stack_t stack;

	if (call->args[0] && user_load(vessel->pager, call->args[0], &stack, sizeof(stack)) == 0) {
		vessel->alternate_stack = (uint64_t)stack.ss_sp;
		vessel->alternate_size = stack.ss_flags & SS_DISABLE ? 0 : stack.ss_size;
	}
}

/* ioctl(2) requests that only ask: what stdio wants to know of its descriptors. */
static bool only_asks(const struct system_call *call)
{
	return call->nr == SYS_ioctl &&
	       (call->args[1] == TCGETS || call->args[1] == TIOCGWINSZ || call->args[1] == FIONREAD);
}

static int come_to(struct vessel *vessel, const struct system_call *asked, int64_t *result)
{
	struct system_call call = *asked;

#ifdef ARCH_VSYSCALL
	if (call.pc - ARCH_VSYSCALL < PAGE_BYTES)
		call.table = TABLE_VSYSCALL;
#endif
	const struct rule *rule = rules_find(&vessel->policy, &call);
	if (!rule || rule->action == POLICY_REFUSE) {
		*result = refuse_note(vessel, &call, rule && rule->result ? rule->result : ENOSYS);
		return 1;
	}
	account_note_granted(vessel, call.nr);
	switch (rule->action) {
	case POLICY_RESULT:
		*result = rule->result;
		return 1;
	case POLICY_ANSWER:
		*result = answer_call(vessel, &call);
		if (*result == ANSWER_WAITS || *result == ANSWER_REDO)
			return *result == ANSWER_WAITS ? 2 : 3;
		if (*result != ANSWER_LET)
			return 1;
		break;
	case POLICY_LET:
		vessel->kernel_changed |= !only_asks(&call);
		break;
	}
	if (call.nr == SYS_sigaltstack)
		note_alternate(vessel, &call);
	user_prepare(vessel, &call);
	return 0;
}

/* Whether all that a call does can be seen in the registers and the memory of the program. */
static bool leaves_no_trace(uint64_t nr)
{
	switch (nr) {
	case SYS_clock_gettime:
	case SYS_clock_nanosleep:
	case SYS_getpid:
	case SYS_gettid:
	case SYS_gettimeofday:
	case SYS_nanosleep:
	case SYS_sched_yield:
		return true;
	default:
		return false;
	}
}

static int decide(struct vessel *vessel, const struct system_call *call, int64_t *result)
{
	vessel->redo.finish = NULL;
	vessel->felt_calls += !leaves_no_trace((uint64_t)call->nr);
	timers_account(vessel);
	int rc = come_to(vessel, call, result);
	timers_fire(vessel);

	/* What it would have written or read lies in memory that there is no room for. */
	if (!vessel->pager->over_limit)
		return rc;
	vessel->wait_call = (int64_t)call->nr;
	vessel->redo.finish = NULL;
	return 2;
}

/* Calls that name a process: itself by its recorded PID is 0; another one is refused. */
static int about_self(struct vessel *vessel, struct registers *regs)
{
	pid_t who = (pid_t)ARGUMENT(regs, 0);

	if (who && who != vessel->record.pid && who != vessel->record.tid)
		return refuse_call(vessel, regs, EPERM);
	return call_with(vessel, regs, 0, ARGUMENT(regs, 1));
}

/* A call of this architecture alone. */
static int own_call(struct vessel *vessel, struct registers *regs)
{
	uint64_t address, value;

	switch (arch_own_call(regs, &address, &value)) {
	case OWN_SKIPPED:
		return call_skip(vessel, regs, (int64_t)value);
	case OWN_STORED:
		return call_skip(vessel, regs, user_store(vessel->pager, address, &value, sizeof(value)));
	case OWN_WRITES:
		user_make_present(vessel->pager, address, sizeof(value), true);
		return 0;
	case OWN_STAYS:
		vessel->kernel_changed = true;
		return 0;
	default:
		return refuse_call(vessel, regs, EINVAL);
	}
}

static int change_mappings(struct vessel *vessel, struct registers *regs)
{
	int rc = tracker_before_mappings(vessel->pager, false);
	if (rc < 0)
		return rc;
	switch (NUMBER(regs)) {
	case SYS_brk:
		return mapping_brk(vessel, regs);
	case SYS_mmap:
		return mapping_mmap(vessel, regs);
	case SYS_munmap:
		return mapping_munmap(vessel, regs);
	case SYS_mremap:
		return mapping_mremap(vessel, regs);
	case SYS_mprotect:
		return mapping_mprotect(vessel, regs);
	case SYS_pkey_mprotect: /* there are no keys but "none" */
		return (int)ARGUMENT(regs, 3) == -1 ? mapping_mprotect(vessel, regs) : call_skip(vessel, regs, -EINVAL);
	case SYS_madvise:
		return mapping_madvise(vessel, regs);
	default:
		return 0;
	}
}

static int traced(struct vessel *vessel, struct registers *regs, struct run *run)
{
	switch (NUMBER(regs)) {
	case SYS_exit:
	case SYS_exit_group:
		run->end = RUN_EXITING;
		run->thread = NUMBER(regs) == SYS_exit;
		run->status = (int)ARGUMENT(regs, 0) & 0xff;
		return call_stop_before(vessel, regs, run);
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
		return kill_signal(vessel, regs, run);
	case SYS_prlimit64:
	case SYS_sched_setparam:
	case SYS_sched_setscheduler:
	case SYS_sched_setaffinity:
	case SYS_sched_setattr:
		return about_self(vessel, regs);
	case SYS_arch_prctl:
		return own_call(vessel, regs);
	default:
		return change_mappings(vessel, regs);
	}
}

static int hold(struct vessel *vessel, struct registers *regs, struct run *run)
{
	call_waits(vessel, run);
	return call_stop_before(vessel, regs, run);
}

static int decide_at_event(struct vessel *vessel, struct registers *regs, int table, struct run *run)
{
	struct system_call call = call_of(regs, table);
	const struct rule *rule = rules_find(&vessel->policy, &call);

	if (rule && rule->action == POLICY_TRACE) {
		account_note_granted(vessel, call.nr);
		user_prepare(vessel, &call);
		int rc = vessel->pager->over_limit ? 0 : traced(vessel, regs, run);
		if (rc || !vessel->pager->over_limit)
			return rc;
		if (!vessel->at_exit && (uint64_t)NUMBER(regs) == call.nr) /* nothing was done yet */
			return hold(vessel, regs, run);
		vessel->pager->over_limit = false;
		return 0;
	}
	int64_t result;
	int rc = decide(vessel, &call, &result);
	if (rc == 2)
		return hold(vessel, regs, run);
	if (rc == 3)
		return call_redo(vessel, regs);
	return rc == 1 ? call_skip(vessel, regs, result) : rc;
}

static int decide_traced(struct vessel *vessel, unsigned long data, struct run *run)
{
	struct registers regs;
	int rc = task_get_registers(vessel, &regs);

	return rc < 0 ? rc : decide_at_event(vessel, &regs, (int)data, run);
}

void policy_init(struct vessel *vessel)
{
	static const struct vessel_handlers handlers = {.decide = decide, .traced = decide_traced};

	vessel_init(vessel, &handlers);
}
