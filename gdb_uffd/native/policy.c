/* policy.c - the filter, and the system calls that are decided one by one: changes of the address
 * space, signals, the end of the process, and what names another process. */
#define _GNU_SOURCE
#include "policy.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

#include "answer.h"
#include "layout.h"
#include "user_memory.h"
#include "vessel.h"

#define FUTEX_COMMAND 0x7f  /* FUTEX_CMD_MASK without the sign */

/* futex(2) operations that only wake: nobody waits, and nothing else happens. */
static const uint32_t waking[] = {FUTEX_WAKE, FUTEX_WAKE_BITSET};
/* ... and that read or change the futex on the way. */
static const uint32_t moving[] = {FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP};

struct filter {
	struct sock_filter *out;
	unsigned used, room;
};

static void put(struct filter *filter, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
	if (filter->used < filter->room)
		filter->out[filter->used] = (struct sock_filter){code, yes, no, k};
	filter->used++;
}

static void put_return(struct filter *filter, uint32_t action)
{
	put(filter, BPF_RET | BPF_K, action, 0, 0);
}

/* `action` for the numbers [first, last]. */
static void put_range(struct filter *filter, uint32_t first, uint32_t last, uint32_t action)
{
	if (first == last) {
		put(filter, BPF_JMP | BPF_JEQ | BPF_K, first, 0, 1);
	} else {
		put(filter, BPF_JMP | BPF_JGE | BPF_K, first, 0, 2);
		put(filter, BPF_JMP | BPF_JGT | BPF_K, last, 1, 0);
	}
	put_return(filter, action);
}

static void put_futex(struct filter *filter, bool user_mode_only, bool notify)
{
	unsigned start = filter->used;

	put(filter, BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 0);
	put(filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]), 0, 0);
	put(filter, BPF_ALU | BPF_AND | BPF_K, FUTEX_COMMAND, 0, 0);
	for (unsigned i = 0; i < sizeof(waking) / sizeof(waking[0]); i++)
		put_range(filter, waking[i], waking[i], SECCOMP_RET_ALLOW);
	for (unsigned i = 0; !user_mode_only && i < sizeof(moving) / sizeof(moving[0]); i++)
		put_range(filter, moving[i], moving[i], SECCOMP_RET_ALLOW);
	put_return(filter, notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_TRACE);
	if (start < filter->room)
		filter->out[start].jf = (uint8_t)(filter->used - start - 1);
}

/* Whether the kernel can carry it out without our knowing. */
static bool passes(const struct vessel *vessel, uint32_t nr)
{
	const struct rule *rule = &vessel->policy.rules[nr];
	bool memory = nr == SYS_rt_sigreturn;

	for (int i = 0; i < 6; i++)
		memory |= rule->kind[i] != ARGUMENT_NUMBER;
	return rule->action == POLICY_RUN && !(memory && vessel->pager->user_mode_only);
}

int policy_filter(const struct vessel *vessel, struct sock_fprog *program, unsigned room, bool notify)
{
	struct filter filter = {program->filter, 0, room};
	const struct rule *rules = vessel->policy.rules;

	put(&filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	put(&filter, BPF_JMP | BPF_JEQ | BPF_K, ARCH_AUDIT, 1, 0);
	put_return(&filter, SECCOMP_RET_TRACE | ARCH_OTHER_TABLE);
	put(&filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	/* No call, or one that was taken back at its entry (catch.c), which vessel_leave_event passes. */
	put_range(&filter, UINT32_MAX, UINT32_MAX, SECCOMP_RET_TRACE);
#ifdef ARCH_X32_BIT
	put(&filter, BPF_JMP | BPF_JGE | BPF_K, ARCH_X32_BIT, 0, 1);
	put_return(&filter, SECCOMP_RET_TRACE | TABLE_X32);
#endif
	if (rules[SYS_futex].action == POLICY_ANSWER)
		put_futex(&filter, vessel->pager->user_mode_only, notify);
	for (uint32_t nr = 0; nr < RULES; nr++) {
		bool pass = passes(vessel, nr);
		uint32_t first = nr;
		if (!pass && !(rules[nr].traced && notify))
			continue;
		while (nr + 1 < RULES && passes(vessel, nr + 1) == pass && rules[nr + 1].traced == rules[first].traced)
			nr++;
		put_range(&filter, first, nr, pass ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRACE);
	}
	put_return(&filter, notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_TRACE);
	program->len = (unsigned short)filter.used;
	return filter.used > room ? -E2BIG : 0;
}

const struct rule *policy_rule(const struct vessel *vessel, const struct system_call *call)
{
	return call->table == TABLE_OWN && call->nr < RULES ? &vessel->policy.rules[call->nr] : NULL;
}

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
	const struct rule *rule = policy_rule(vessel, &call);
	if (!rule || rule->action == POLICY_REFUSE) {
		*result = policy_note_refusal(vessel, &call, rule && rule->result ? rule->result : ENOSYS);
		return 1;
	}
	vessel_note_granted(vessel, call.nr);
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

int policy_decide(struct vessel *vessel, const struct system_call *call, int64_t *result)
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

int policy_skip(struct vessel *vessel, struct registers *regs, int64_t result)
{
	arch_skip_call(regs, result);
	return vessel_set_registers(vessel, regs);
}

static struct system_call call_of(const struct registers *regs, int table)
{
	return (struct system_call){
		.nr = NUMBER(regs),
		.args = {ARGUMENT(regs, 0), ARGUMENT(regs, 1), ARGUMENT(regs, 2), ARGUMENT(regs, 3), ARGUMENT(regs, 4), ARGUMENT(regs, 5)},
		.pc = PC(regs),
		.table = table,
	};
}

int policy_refuse(struct vessel *vessel, struct registers *regs, int error)
{
	struct system_call call = call_of(regs, TABLE_OWN);

	return policy_skip(vessel, regs, policy_note_refusal(vessel, &call, error));
}

void policy_waits(struct vessel *vessel, struct run *run)
{
	run->end = vessel->pager->over_limit ? RUN_MEMORY : RUN_WAITING;
	run->signal = SIGTRAP;
	run->call = vessel->wait_call;
	run->address = vessel->wait_address;
}

int policy_stand_before(struct vessel *vessel, struct registers *regs, struct run *run)
{
	arch_stand_before(regs, vessel->mode != RESUME_CONTINUE);
	run->pc = PC(regs);
	int rc = vessel_set_registers(vessel, regs);
	return rc < 0 ? rc : 1;
}

int policy_stop_before(struct vessel *vessel, struct registers *regs, struct run *run)
{
	int rc = policy_stand_before(vessel, regs, run);

	return rc < 0 ? rc : vessel_leave_event(vessel, run);
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
	int rc = layout_finish(vessel, regs, notified, &result);
	if (rc < 0)
		return rc;
	arch_restore_arguments(regs, &own);
	RESULT(regs) = (uint64_t)redo.finish(vessel, &redo.call, result);
	return vessel_set_registers(vessel, regs);
}

int policy_redo(struct vessel *vessel, struct registers *regs)
{
	return redo(vessel, regs, false);
}

int policy_redo_from(struct vessel *vessel, struct registers *regs)
{
	int status;

	do {
		if (ptrace(PTRACE_SYSCALL, vessel->pid, NULL, NULL) < 0 || vessel_wait_stop(vessel, &status) < 0)
			return fail(&vessel->error, ESRCH, "the vessel died before a system call");
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			signals_hold(vessel, WSTOPSIG(status));
	} while (WSTOPSIG(status) != (SIGTRAP | 0x80));
	int rc = vessel_get_registers(vessel, regs);
	return rc < 0 ? rc : redo(vessel, regs, vessel->listener >= 0);
}

int policy_call_with(struct vessel *vessel, struct registers *regs, uint64_t first, uint64_t second)
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

/* Calls that name a process: itself by its recorded PID is 0; another one is refused. */
static int about_self(struct vessel *vessel, struct registers *regs)
{
	pid_t who = (pid_t)ARGUMENT(regs, 0);

	if (who && who != vessel->record.pid && who != vessel->record.tid)
		return policy_refuse(vessel, regs, EPERM);
	return policy_call_with(vessel, regs, 0, ARGUMENT(regs, 1));
}

/* A call of this architecture alone. */
static int own_call(struct vessel *vessel, struct registers *regs)
{
	int64_t result;
	int rc = arch_own_call(vessel, regs, &result);

	if (rc < 0)
		return policy_refuse(vessel, regs, -rc);
	return rc ? policy_skip(vessel, regs, result) : 0;
}

static int traced(struct vessel *vessel, struct registers *regs, struct run *run)
{
	switch (NUMBER(regs)) {
	case SYS_exit:
	case SYS_exit_group:
		run->end = RUN_EXITING;
		run->thread = NUMBER(regs) == SYS_exit;
		run->status = (int)ARGUMENT(regs, 0) & 0xff;
		return policy_stop_before(vessel, regs, run);
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
		return signals_kill(vessel, regs, run);
	case SYS_prlimit64:
	case SYS_sched_setparam:
	case SYS_sched_setscheduler:
	case SYS_sched_setaffinity:
	case SYS_sched_setattr:
		return about_self(vessel, regs);
	case SYS_arch_prctl:
		return own_call(vessel, regs);
	default:
		return layout_system_call(vessel, regs);
	}
}

static int hold(struct vessel *vessel, struct registers *regs, struct run *run)
{
	policy_waits(vessel, run);
	return policy_stop_before(vessel, regs, run);
}

static int decide(struct vessel *vessel, struct registers *regs, int table, struct run *run)
{
	struct system_call call = call_of(regs, table);
	const struct rule *rule = policy_rule(vessel, &call);

	if (rule && rule->action == POLICY_TRACE) {
		vessel_note_granted(vessel, call.nr);
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
	int rc = policy_decide(vessel, &call, &result);
	if (rc == 2)
		return hold(vessel, regs, run);
	if (rc == 3)
		return policy_redo(vessel, regs);
	return rc == 1 ? policy_skip(vessel, regs, result) : rc;
}

int policy_traced(struct vessel *vessel, unsigned long data, struct run *run)
{
	struct registers regs;
	int rc = vessel_get_registers(vessel, &regs);

	return rc < 0 ? rc : decide(vessel, &regs, (int)data, run);
}
