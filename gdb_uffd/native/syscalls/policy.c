/* policy.c - the system calls that are decided one by one: changes of the address
 * space, signals, the end of the process, and what names another process. */
#define _GNU_SOURCE
#include "syscalls/policy.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>

#include "process/account.h"
#include "process/call.h"
#include "process/task.h"
#include "process/timers.h"
#include "process/user.h"
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

/* Calls that name a process: itself by its recorded PID is 0; another one is refused. */
static int about_self(struct vessel *vessel, struct registers *regs, struct run *run)
{
	pid_t who = (pid_t)ARGUMENT(regs, 0);

	(void)run;
	if (who && who != vessel->identity.pid && who != vessel->identity.tid)
		return refuse_call(vessel, regs, EPERM);
	return call_with(vessel, regs, 0, ARGUMENT(regs, 1));
}

/* A call of this architecture alone. */
static int own_call(struct vessel *vessel, struct registers *regs, struct run *run)
{
	uint64_t address, value;

	(void)run;
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

static int exits(struct vessel *vessel, struct registers *regs, struct run *run)
{
	run->end = RUN_EXITING;
	run->thread = NUMBER(regs) == SYS_exit;
	run->status = (int)ARGUMENT(regs, 0) & 0xff;
	return call_stop_before(vessel, regs, run);
}

/* By the names that syscalls.tbl has.  The vessel stands before a call that is traced: 1: it goes no further, `run`
 * says why; 0: let it go. */
static const struct handler {
	const char *name;
	int64_t (*answer)(struct vessel *vessel, const struct system_call *call);
	int (*traced)(struct vessel *vessel, struct registers *regs, struct run *run);
	int (*mapping)(struct vessel *vessel, struct registers *regs);
} handlers[] = {
	{.name = "-"},
	{.name = "brk", .mapping = mapping_brk},
	{.name = "channel", .answer = answer_channel},
	{.name = "descriptor", .answer = answer_descriptor},
	{.name = "epoll", .answer = answer_epoll},
	{.name = "exit", .traced = exits},
	{.name = "identity", .answer = answer_identity},
	{.name = "kill", .traced = kill_signal},
	{.name = "limits", .answer = answer_limits, .traced = about_self},
	{.name = "madvise", .mapping = mapping_madvise},
	{.name = "memory", .answer = answer_memory},
	{.name = "message", .answer = answer_message},
	{.name = "mmap", .mapping = mapping_mmap},
	{.name = "mprotect", .mapping = mapping_mprotect},
	{.name = "mremap", .mapping = mapping_mremap},
	{.name = "munmap", .mapping = mapping_munmap},
	{.name = "own", .traced = own_call},
	{.name = "path", .answer = answer_path},
	{.name = "socket", .answer = answer_socket},
	{.name = "time", .answer = answer_time},
	{.name = "timer", .answer = answer_timer},
	{.name = "transfer", .answer = answer_transfer},
	{.name = "wait", .answer = answer_wait},
};

int policy_handler(const char *name)
{
	for (size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++)
		if (!strcmp(handlers[i].name, name))
			return (int)i;
	return -ENOENT;
}

static int64_t answer(struct vessel *vessel, const struct rule *rule, const struct system_call *call)
{
	int64_t (*answers)(struct vessel *, const struct system_call *) = handlers[rule->handler].answer;
	int64_t result = answers ? answers(vessel, call) : ANSWER_NOT_MINE;

	return result == ANSWER_NOT_MINE ? refuse_note(vessel, call, ENOSYS) : result;
}

static int traced(struct vessel *vessel, const struct rule *rule, struct registers *regs, struct run *run)
{
	const struct handler *handler = &handlers[rule->handler];

	if (handler->traced)
		return handler->traced(vessel, regs, run);
	int rc = tracker_before_mappings(vessel->pager, false);
	return rc < 0 || !handler->mapping ? rc : handler->mapping(vessel, regs);
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
		*result = answer(vessel, rule, &call);
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
		int rc = vessel->pager->over_limit ? 0 : traced(vessel, rule, regs, run);
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
