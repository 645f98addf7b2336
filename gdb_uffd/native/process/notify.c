#define _GNU_SOURCE
#include "process/notify.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "process/vessel.h"

/* In a burst the listener alone is listened to: everything else waits so long at most. */
#define BURST_NS 5000000l
#define BURST_OUTPUT (64u << 10) /* bytes that are to be shown at once */

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

int notify_serve(struct vessel *vessel)
{
	union received got;
	int64_t result = 0;
	int rc = receive(vessel, &got);

	if (rc < 0)
		return rc;
	const struct seccomp_data *data = &got.notif.data;
	struct system_call call = {.nr = (uint32_t)data->nr, .pc = data->instruction_pointer};
	pager_settle(vessel->pager);
	memcpy(call.args, data->args, sizeof(call.args));
	rc = vessel->handlers->decide(vessel, &call, &result);
	if (rc == 2 || rc == 3) {
		/* The stop comes before the next instruction; what the program was answered is taken back. */
		vessel->waiting = true;
		vessel->wait_pc = call.pc;
		vessel->wait_first = call.args[0];
		if (rc == 3)
			vessel->wait_call = (int64_t)call.nr;
		kill(vessel->pid, SIGSTOP);
		result = -EINTR;
	}
	/* Letting the kernel go on is safe here: nobody else runs who could change what was looked at. */
	return rc < 0 ? rc : reply(vessel, &got, result, rc == 0);
}

static __thread volatile sig_atomic_t interrupted; /* the handler can be told in no other way */

void notify_interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* `ns`: from one SIGCHLD of ours to the next; 0: no more. */
static int set_timer(struct vessel *vessel, long ns)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGCHLD};
	struct itimerspec spec = {{0, ns}, {0, ns}};

	event._sigev_un._tid = gettid();
	if (!vessel->has_timer && timer_create(CLOCK_MONOTONIC, &event, &vessel->timer) < 0)
		return -errno;
	vessel->has_timer = true;
	return timer_settime(vessel->timer, 0, &spec, NULL) < 0 ? -errno : 0;
}

void notify_forget_timer(struct vessel *vessel)
{
	if (vessel->has_timer)
		timer_delete(vessel->timer);
	vessel->has_timer = false;
}

int notify_burst(struct vessel *vessel, const sigset_t *inside)
{
	sigset_t before;
	int rc = set_timer(vessel, BURST_NS);

	if (rc < 0)
		return notify_serve(vessel);
	interrupted = 0;
	sigprocmask(SIG_SETMASK, inside, &before);
	/* A signal between the look and the sleep is made up for by the timer's next one. */
	while (rc == 0 && !interrupted && !vessel->waiting && vessel->out_len < BURST_OUTPUT)
		rc = notify_serve(vessel);
	sigprocmask(SIG_SETMASK, &before, NULL);
	set_timer(vessel, 0);
	return rc;
}

int notify_let_one(struct vessel *vessel)
{
	union received got;
	int rc = receive(vessel, &got);

	return rc < 0 ? rc : reply(vessel, &got, 0, true);
}
