/* wait.c - until the vessel stops, or something else is to be done. */
#define _GNU_SOURCE
#include "process/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "kernel/now.h"
#include "process/notify.h"
#include "process/run.h"
#include "process/task.h"
#include "process/timers.h"
#include "process/vessel.h"

/* SIGCHLD is blocked but inside ppoll, so no stop can be missed between the look and the sleep. */
static int listen_for_stops(sigset_t *inside, sigset_t *before, struct sigaction *old)
{
	struct sigaction action = {.sa_handler = notify_interrupt};
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &chld, before) < 0)
		return -errno;
	*inside = *before;
	sigdelset(inside, SIGCHLD);
	return sigaction(SIGCHLD, &action, old) < 0 ? -errno : 0;
}

#define STREAK 16                 /* system calls after which more are expected */
#define OUTPUT_NOW (64u << 10)    /* bytes that are shown at once */
#define OUTPUT_WAIT_NS 20000000ul /* ... and how long fewer may wait for more */

#define STOP_AGAIN_NS 100000000ul

/* Whether a stop was asked for in this run, and has not come. */
static bool is_stopping(const struct vessel *vessel)
{
	return vessel->stop_sent && !vessel->stop_stale;
}

/* SIGCONT, from whomever, takes a SIGSTOP of ours with it that is under way (signal(7)): one that does not
 * come is sent again.  When that will be. */
static uint64_t ask_again(struct vessel *vessel, uint64_t now)
{
	if (!vessel->stop_asked_ns) {
		vessel->stop_asked_ns = now;
	} else if (vessel->stop_asked_ns + STOP_AGAIN_NS <= now) {
		vessel->stop_asked_ns = now;
		kill(vessel->pid, SIGSTOP);
	}
	return vessel->stop_asked_ns + STOP_AGAIN_NS;
}

/* Until when to sleep: output that waits, the deadline, a stop that was asked for.  `limit` out; NULL: for
 * ever.  True when there is output to be shown now. */
static bool time_limit(struct vessel *vessel, struct timespec *limit, struct timespec **used)
{
	uint64_t until = UINT64_MAX;

	*used = NULL;
	timers_account(vessel);
	timers_fire(vessel);
	uint64_t left = timers_left(vessel), now = now_ns();
	if (!vessel->out_len && !vessel->deadline_ns && left == UINT64_MAX && !is_stopping(vessel))
		return false;
	if (left != UINT64_MAX)
		until = now + left;
	if (vessel->out_len) {
		if (!vessel->out_since_ns)
			vessel->out_since_ns = now;
		if (vessel->out_since_ns + OUTPUT_WAIT_NS < until)
			until = vessel->out_since_ns + OUTPUT_WAIT_NS;
		if (vessel->out_len >= OUTPUT_NOW || vessel->out_since_ns + OUTPUT_WAIT_NS <= now)
			return true;
	}
	if (vessel->deadline_ns && !vessel->timed_out) {
		if (vessel->deadline_ns <= now) {
			vessel->timed_out = true;
			task_interrupt(vessel);
		} else if (vessel->deadline_ns < until) {
			until = vessel->deadline_ns;
		}
	}
	if (is_stopping(vessel)) {
		uint64_t again = ask_again(vessel, now);
		until = again < until ? again : until;
	}
	if (until == UINT64_MAX)
		return false;
	*limit = (struct timespec){(time_t)((until - now) / 1000000000u), (long)((until - now) % 1000000000u)};
	*used = limit;
	return false;
}

static int wait_inside(struct vessel *vessel, int control_fd, struct run *run, const sigset_t *inside)
{
	struct pollfd fds[3] = {
		{control_fd, POLLIN, 0}, {vessel->output_fd, POLLIN, 0}, {vessel->listener, POLLIN, 0}};
	struct timespec limit, *used;
	int status, streak = 0;

	for (;;) {
		pid_t got = waitpid(vessel->pid, &status, __WALL | WNOHANG);
		if (got < 0)
			return fail(&vessel->error, errno, "waiting for the vessel");
		if (got > 0) {
			int rc = run_digest(vessel, status, run);
			if (rc)
				return rc < 0 ? rc : 0;
			continue;
		}
	sleep:
		if (time_limit(vessel, &limit, &used)) {
			run->end = RUN_OUTPUT;
			return 0;
		}
		int ready = ppoll(fds, 3, used, inside);
		if (ready < 0) {
			if (errno == EINTR)
				continue;
			return fail(&vessel->error, errno, "ppoll");
		}
		if (fds[0].revents) {
			run->end = RUN_CONTROL;
			return 0;
		}
		if (fds[1].revents & POLLIN) {
			run->end = RUN_OUTPUT;
			return 0;
		}
		if (fds[1].revents) /* the write ends are closed: nothing more to come */
			fds[1].fd = -1;
		if (fds[2].revents & POLLIN) {
			if (streak++ >= STREAK) {
				notify_burst(vessel, inside);
				continue;
			}
			/* The vessel was asleep until now: there is no stop to look for. */
			notify_serve(vessel);
			goto sleep;
		}
		if (fds[2].revents)
			fds[2].fd = -1;
	}
}

int wait_vessel(struct vessel *vessel, int control_fd, struct run *run)
{
	struct sigaction old;
	sigset_t inside, before;

	*run = (struct run){0};
	int rc = listen_for_stops(&inside, &before, &old);
	if (rc < 0)
		return fail(&vessel->error, -rc, "SIGCHLD");
	timers_begin(vessel);
	rc = wait_inside(vessel, control_fd, run, &inside);
	timers_end(vessel);
	sigaction(SIGCHLD, &old, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (rc == 0 && (run->end == RUN_CONTROL || run->end == RUN_OUTPUT))
		return 0;
	if (rc < 0 || !vessel->keeps_cpu)
		task_leave_cpu(vessel);
	return rc;
}

