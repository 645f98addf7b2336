#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "policy.h"
#include "vessel.h"

/* The kernel copies its own structure, which may be longer than the one of these headers. */
union received {
	struct seccomp_notif notif;
	uint8_t room[512];
};

bool notify_is_available(void)
{
	uint32_t action = SECCOMP_RET_USER_NOTIF;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static int receive(struct vessel *vessel, union received *got)
{
	memset(got, 0, sizeof(*got));
	return ioctl(vessel->listener, SECCOMP_IOCTL_NOTIF_RECV, got) < 0 ? -errno : 0;
}

/* ioctl(fd, request, argument) unless *flag is set, without a gap between the look and the sleep: the
 * handler below leads a thread that it finds before the system call around it. */
long notify_guarded_ioctl(volatile int *flag, long fd, unsigned long request, void *argument);
extern const char notify_guard_begin[], notify_guard_end[], notify_guard_out[];
__asm__(".text\n"
	".globl notify_guarded_ioctl, notify_guard_begin, notify_guard_end, notify_guard_out\n"
	".hidden notify_guarded_ioctl, notify_guard_begin, notify_guard_end, notify_guard_out\n"
	".type notify_guarded_ioctl, @function\n"
	"notify_guarded_ioctl:\n"
	"	mov %rdi, %r8\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n"
	"	mov $16, %eax\n" /* SYS_ioctl */
	"notify_guard_begin:\n"
	"	cmpl $0, (%r8)\n"
	"	jne notify_guard_out\n"
	"notify_guard_end:\n"
	"	syscall\n"
	"	ret\n"
	"notify_guard_out:\n"
	"	mov $-4, %rax\n" /* -EINTR */
	"	ret\n"
	".size notify_guarded_ioctl, . - notify_guarded_ioctl\n");

static __thread volatile int interrupted; /* the handler can be told in no other way */

void notify_interrupt(int signal, siginfo_t *info, void *context)
{
	greg_t *pc = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	(void)signal;
	(void)info;
	interrupted = 1;
	if (*pc >= (greg_t)notify_guard_begin && *pc <= (greg_t)notify_guard_end)
		*pc = (greg_t)notify_guard_out;
}

/* In a burst the listener alone is listened to: everything else waits so long at most. */
#define BURST_NS 10000000l
#define BURST_OUTPUT (64u << 10) /* bytes that are to be shown at once */

static int set_timer(struct vessel *vessel, long ns)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGCHLD};
	struct itimerspec spec = {.it_value = {0, ns}};

	event._sigev_un._tid = gettid();
	if (!vessel->has_timer) {
		if (timer_create(CLOCK_MONOTONIC, &event, &vessel->timer) < 0)
			return -errno;
		vessel->has_timer = true;
	}
	return timer_settime(vessel->timer, 0, &spec, NULL) < 0 ? -errno : 0;
}

void notify_forget_timer(struct vessel *vessel)
{
	if (vessel->has_timer)
		timer_delete(vessel->timer);
	vessel->has_timer = false;
}

static int reply(struct vessel *vessel, const union received *got, int64_t result, bool let)
{
	union {
		struct seccomp_notif_resp reply;
		uint8_t room[512];
	} out = {.room = {0}};

	out.reply.id = got->notif.id;
	if (let)
		out.reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	else if (result < 0 && result >= -4095)
		out.reply.error = (int)result;
	else
		out.reply.val = result;
	return ioctl(vessel->listener, SECCOMP_IOCTL_NOTIF_SEND, &out) < 0 ? -errno : 0;
}

static int serve(struct vessel *vessel, const union received *got)
{
	const struct seccomp_data *data = &got->notif.data;
	struct system_call call = {.nr = (uint32_t)data->nr, .pc = data->instruction_pointer};
	int64_t result = 0;

	pager_settle(vessel->pager);
	memcpy(call.args, data->args, sizeof(call.args));
	int rc = policy_decide(vessel, &call, &result);
	if (rc == 2) {
		/* The stop comes before the next instruction; what the program was answered is taken back. */
		vessel->waiting = true;
		kill(vessel->pid, SIGSTOP);
		result = -EINTR;
	}
	/* Letting the kernel go on is safe here: nobody else runs who could change what was looked at. */
	return rc < 0 ? rc : reply(vessel, got, result, rc == 0);
}

int notify_serve(struct vessel *vessel)
{
	union received got;
	int rc = receive(vessel, &got);

	return rc < 0 ? rc : serve(vessel, &got);
}

void notify_burst(struct vessel *vessel, const sigset_t *inside)
{
	union received got;
	sigset_t before;

	if (set_timer(vessel, BURST_NS) < 0) {
		notify_serve(vessel);
		return;
	}
	interrupted = 0;
	sigprocmask(SIG_SETMASK, inside, &before);
	while (!vessel->waiting && vessel->out_len < BURST_OUTPUT) {
		memset(&got, 0, sizeof(got));
		if (notify_guarded_ioctl(&interrupted, vessel->listener, SECCOMP_IOCTL_NOTIF_RECV, &got) < 0)
			break;
		serve(vessel, &got);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	set_timer(vessel, 0);
}

int notify_let_one(struct vessel *vessel)
{
	union received got;
	int rc = receive(vessel, &got);

	return rc < 0 ? rc : reply(vessel, &got, 0, true);
}
