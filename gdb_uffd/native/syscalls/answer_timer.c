/* answer_timer.c - alarm(2), setitimer(2), timer_create(2) and their like. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#include "process/clock.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/refuse.h"

#define SECOND_NS 1000000000ull

static uint64_t count_of(const struct kernel_state *state, const struct timer *timer)
{
	return timer->cpu ? state->ran_ns : state->elapsed_ns;
}

static uint64_t left_of(const struct kernel_state *state, const struct timer *timer)
{
	uint64_t now = count_of(state, timer);

	/* One that is due and not told of yet is armed all the same. */
	return !timer->due ? 0 : timer->due > now ? timer->due - now : 1;
}

static void arm(struct kernel_state *state, struct timer *timer, uint64_t in, uint64_t every)
{
	uint64_t now = count_of(state, timer);

	timer->due = now + (in < CLOCK_LONGEST_NS - now ? in : CLOCK_LONGEST_NS - now);
	timer->due += !timer->due;
	timer->every = every;
	timer->overrun = 0;
	timer->ticks = 0;
}

static void disarm(struct timer *timer)
{
	timer->due = timer->every = timer->ticks = 0;
	timer->overrun = 0;
}

static int64_t alarm_(struct vessel *vessel, uint32_t seconds)
{
	struct timer *timer = &vessel->kernel_state.timers[ITIMER_REAL];
	uint64_t left = left_of(&vessel->kernel_state, timer);

	if (seconds)
		arm(&vessel->kernel_state, timer, seconds * SECOND_NS, 0);
	else
		disarm(timer);
	/* Rounded, but never to 0 (kernel/time/itimer.c, alarm_setitimer). */
	return left ? (int64_t)((left + SECOND_NS / 2) / SECOND_NS) + (left < SECOND_NS / 2) : 0;
}

static struct timeval timeval_of(uint64_t ns)
{
	return (struct timeval){(time_t)(ns / SECOND_NS), (suseconds_t)(ns % SECOND_NS / 1000)};
}

static int64_t store_interval(struct vessel *vessel, const struct timer *timer, uint64_t at)
{
	struct itimerval now = {timeval_of(timer->every), timeval_of(left_of(&vessel->kernel_state, timer))};

	if (timer->due && !now.it_value.tv_sec && !now.it_value.tv_usec)
		now.it_value.tv_usec = 1;
	return user_store(vessel->pager, at, &now, sizeof(now));
}

static int micros(const struct timeval *time, uint64_t *ns)
{
	if (time->tv_sec < 0 || time->tv_usec < 0 || time->tv_usec >= 1000000)
		return -EINVAL;
	*ns = (uint64_t)time->tv_sec >= CLOCK_LONGEST_NS / SECOND_NS ? CLOCK_LONGEST_NS :
								  (uint64_t)time->tv_sec * SECOND_NS + (uint64_t)time->tv_usec * 1000;
	return 0;
}

static int64_t setitimer_(struct vessel *vessel, const struct system_call *call)
{
	struct itimerval wanted = {{0, 0}, {0, 0}};
	uint64_t in, every;

	if (call->args[0] > ITIMER_PROF)
		return -EINVAL;
	struct timer *timer = &vessel->kernel_state.timers[call->args[0]];
	if (call->args[1] && user_load(vessel->pager, call->args[1], &wanted, sizeof(wanted)) < 0)
		return -EFAULT;
	if (micros(&wanted.it_value, &in) < 0 || micros(&wanted.it_interval, &every) < 0)
		return -EINVAL;
	if (call->args[2] && store_interval(vessel, timer, call->args[2]) < 0)
		return -EFAULT;
	if (in)
		arm(&vessel->kernel_state, timer, in, every);
	else
		disarm(timer);
	return 0;
}

/* A free one, or NULL. */
static struct timer *make(struct vessel *vessel, int kind, int clock)
{
	for (int i = 3; i < TIMERS_MAX; i++) {
		struct timer *timer = &vessel->kernel_state.timers[i];
		if (timer->kind)
			continue;
		bool cpu = clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
		*timer = (struct timer){.kind = (uint8_t)kind, .clock = clock, .cpu = cpu};
		return timer;
	}
	return NULL;
}

static int64_t create(struct vessel *vessel, const struct system_call *call)
{
	int clock = (int)call->args[0];
	struct sigevent event = {.sigev_signo = SIGALRM, .sigev_notify = SIGEV_SIGNAL};
	int64_t now;

	if (clock_now(vessel, clock, &now) < 0)
		return -EINVAL;
	if (call->args[1] && user_load(vessel->pager, call->args[1], &event, sizeof(event)) < 0)
		return -EFAULT;
	bool own = event.sigev_notify == SIGEV_THREAD_ID && event._sigev_un._tid == vessel->identity.tid;
	/* No other thread runs that could be told (SIGEV_THREAD is one that the C library makes). */
	if (!own && event.sigev_notify != SIGEV_SIGNAL && event.sigev_notify != SIGEV_NONE)
		return refuse_note(vessel, call, EINVAL);
	if (event.sigev_notify != SIGEV_NONE && (event.sigev_signo < 1 || event.sigev_signo > SIGNALS))
		return -EINVAL;
	struct timer *timer = make(vessel, TIMER_POSIX, clock);
	if (!timer)
		return -EAGAIN;
	int32_t id = (int32_t)(timer - vessel->kernel_state.timers) - 3;
	timer->silent = event.sigev_notify == SIGEV_NONE;
	timer->signal = event.sigev_signo;
	timer->value = call->args[1] ? (uint64_t)event.sigev_value.sival_ptr : (uint64_t)id;
	int rc = user_store(vessel->pager, call->args[2], &id, sizeof(id));
	if (rc < 0)
		timer->kind = TIMER_NONE;
	return rc;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / SECOND_NS), (long)(ns % SECOND_NS)};
}

static int64_t store_timer(struct vessel *vessel, const struct timer *timer, uint64_t at)
{
	struct itimerspec now = {timespec_of(timer->every), timespec_of(left_of(&vessel->kernel_state, timer))};

	return user_store(vessel->pager, at, &now, sizeof(now));
}

static int64_t set(struct vessel *vessel, struct timer *timer, bool absolute, uint64_t from, uint64_t old)
{
	int64_t in, every, now = 0;
	int rc = clock_load_timespec(vessel, from, &every);

	if (rc == 0)
		rc = clock_load_timespec(vessel, from + sizeof(struct timespec), &in);
	if (rc < 0)
		return rc;
	if (old && store_timer(vessel, timer, old) < 0)
		return -EFAULT;
	if (!in) {
		disarm(timer);
		return 0;
	}
	if (absolute) {
		clock_now(vessel, timer->clock, &now);
		in = in > now ? in - now : 0;
	}
	arm(&vessel->kernel_state, timer, (uint64_t)in, (uint64_t)every);
	return 0;
}

static struct timer *posix_timer(struct vessel *vessel, uint64_t id)
{
	struct timer *timer = (int)id >= 0 && (int)id < TIMERS_MAX - 3 ? &vessel->kernel_state.timers[(int)id + 3] : NULL;

	return timer && timer->kind == TIMER_POSIX ? timer : NULL;
}

static int64_t descriptor(struct vessel *vessel, const struct system_call *call)
{
	uint32_t flags = (uint32_t)call->args[1];
	int64_t now;

	if ((flags & ~(uint32_t)(TFD_CLOEXEC | TFD_NONBLOCK)) || (int)call->args[0] < 0 ||
	    clock_now(vessel, (int)call->args[0], &now) < 0)
		return -EINVAL;
	struct timer *timer = make(vessel, TIMER_DESCRIPTOR, (int)call->args[0]);
	if (!timer)
		return -EMFILE;
	struct opened *file = fd_table_open(&vessel->kernel_state, -1, OPENED_TIMER, O_RDWR | (flags & O_NONBLOCK));
	if (file)
		file->offset = timer - vessel->kernel_state.timers;
	int number = file ? fd_table_install(&vessel->kernel_state, &vessel->identity, file, 0, flags & TFD_CLOEXEC) : -EMFILE;
	if (file && number < 0)
		fd_table_release(&vessel->kernel_state, NULL, file);
	else if (!file)
		timer->kind = TIMER_NONE;
	return number;
}

static int64_t about_descriptor(struct vessel *vessel, const struct system_call *call)
{
	struct opened *file = fd_table_find(&vessel->kernel_state, (int)call->args[0]);

	if (!file)
		return refuse_descriptor(vessel, call, (int)call->args[0]);
	if (file->kind != OPENED_TIMER)
		return -EINVAL;
	struct timer *timer = &vessel->kernel_state.timers[file->offset];
	if (call->nr == SYS_timerfd_gettime)
		return store_timer(vessel, timer, call->args[1]);
	if ((uint32_t)call->args[1] & ~(uint32_t)(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET))
		return -EINVAL;
	return set(vessel, timer, call->args[1] & TFD_TIMER_ABSTIME, call->args[2], call->args[3]);
}

int64_t answer_timer(struct vessel *vessel, const struct system_call *call)
{
	struct timer *timer;

	switch (call->nr) {
	case SYS_alarm:
		return alarm_(vessel, (uint32_t)call->args[0]);
	case SYS_setitimer:
		return setitimer_(vessel, call);
	case SYS_getitimer:
		if (call->args[0] > ITIMER_PROF)
			return -EINVAL;
		return store_interval(vessel, &vessel->kernel_state.timers[call->args[0]], call->args[1]);
	case SYS_timer_create:
		return create(vessel, call);
	case SYS_timer_settime:
	case SYS_timer_gettime:
	case SYS_timer_getoverrun:
	case SYS_timer_delete:
		timer = posix_timer(vessel, call->args[0]);
		break;
	case SYS_timerfd_create:
		return descriptor(vessel, call);
	case SYS_timerfd_settime:
	case SYS_timerfd_gettime:
		return about_descriptor(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
	if (!timer) /* one of the recorded process is not recorded */
		return refuse_note(vessel, call, EINVAL);
	switch (call->nr) {
	case SYS_timer_settime:
		return set(vessel, timer, call->args[1] & TIMER_ABSTIME, call->args[2], call->args[3]);
	case SYS_timer_gettime:
		return store_timer(vessel, timer, call->args[1]);
	case SYS_timer_getoverrun:
		return timer->overrun;
	default:
		*timer = (struct timer){0};
		return 0;
	}
}
