/* answer_time.c - the recorded clock.  It begins at the snapshot, is READING_NS later at each reading,
 * and a sleep moves it on at once, so that a call sees the same times whenever it is repeated. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include "process/clock.h"
#include "process/timers.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/waiting.h"

#define SECOND_NS 1000000000ll
#define READING_NS 1000 /* a loop that waits for a time to come ends */

static int64_t store(struct vessel *vessel, uint64_t address, const void *from, size_t len)
{
	return address ? user_store(vessel->pager, address, from, len) : 0;
}

static int64_t clock_gettime_(struct vessel *vessel, const struct system_call *call)
{
	int64_t ns, rc = clock_now(vessel, (int)call->args[0], &ns);
	struct timespec time = {.tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS};

	if (rc < 0)
		return rc;
	return user_store(vessel->pager, call->args[1], &time, sizeof(time));
}

static int64_t gettimeofday_(struct vessel *vessel, const struct system_call *call)
{
	struct timezone zone = {0};
	int64_t ns = 0;

	clock_now(vessel, CLOCK_REALTIME, &ns);
	struct timeval time = {.tv_sec = ns / SECOND_NS, .tv_usec = ns % SECOND_NS / 1000};
	int64_t rc = store(vessel, call->args[0], &time, sizeof(time));
	return rc < 0 ? rc : store(vessel, call->args[1], &zone, sizeof(zone));
}

static int64_t time_(struct vessel *vessel, const struct system_call *call)
{
	int64_t ns = 0;

	clock_now(vessel, CLOCK_REALTIME, &ns);
	int64_t seconds = ns / SECOND_NS, rc = store(vessel, call->args[0], &seconds, sizeof(seconds));
	return rc < 0 ? rc : seconds;
}

static int64_t times_(struct vessel *vessel, const struct system_call *call)
{
	int64_t tick = SECOND_NS / 100, cpu = 0, boot = 0; /* USER_HZ */

	clock_now(vessel, CLOCK_PROCESS_CPUTIME_ID, &cpu);
	clock_now(vessel, CLOCK_MONOTONIC, &boot);
	struct tms spent = {.tms_utime = cpu / tick};
	int64_t rc = store(vessel, call->args[0], &spent, sizeof(spent));
	return rc < 0 ? rc : boot / tick;
}

static int64_t getrusage_(struct vessel *vessel, const struct system_call *call)
{
	int64_t cpu = 0;
	struct rusage usage = {0};

	clock_now(vessel, CLOCK_PROCESS_CPUTIME_ID, &cpu);
	if ((int)call->args[0] != RUSAGE_CHILDREN)
		usage.ru_utime = (struct timeval){cpu / SECOND_NS, cpu % SECOND_NS / 1000};
	return user_store(vessel->pager, call->args[1], &usage, sizeof(usage));
}

/* `left`: where what is left is told when a signal ends it. */
static int64_t sleep_(struct vessel *vessel, const struct system_call *call, int64_t ns, uint64_t left)
{
	int64_t wanted = ns;

	if (timers_pass(vessel, &ns, false) != PASSED_INTERRUPTED)
		return waiting_over(vessel, call, wanted, 0);
	struct timespec rest = {.tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS};
	int64_t rc = store(vessel, left, &rest, sizeof(rest));
	return rc < 0 ? rc : -EINTR;
}

static int64_t nanosleep_(struct vessel *vessel, const struct system_call *call, uint64_t address, uint64_t left)
{
	int64_t ns, rc = clock_load_timespec(vessel, address, &ns);

	return rc < 0 ? rc : sleep_(vessel, call, ns, left);
}

static int64_t clock_nanosleep_(struct vessel *vessel, const struct system_call *call)
{
	int64_t now, until;

	if (!(call->args[1] & TIMER_ABSTIME))
		return clock_now(vessel, (int)call->args[0], &now) < 0 ?
			       -EINVAL :
			       nanosleep_(vessel, call, call->args[2], call->args[3]);
	int64_t rc = clock_now(vessel, (int)call->args[0], &now);
	if (rc == 0)
		rc = clock_load_timespec(vessel, call->args[2], &until);
	return rc == 0 && until > now ? sleep_(vessel, call, until - now, 0) : rc;
}

int64_t answer_time(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_clock_gettime:
		clock_pass(vessel, READING_NS);
		return clock_gettime_(vessel, call);
	case SYS_gettimeofday:
		clock_pass(vessel, READING_NS);
		return gettimeofday_(vessel, call);
	case SYS_time:
		clock_pass(vessel, READING_NS);
		return time_(vessel, call);
	case SYS_times:
		clock_pass(vessel, READING_NS);
		return times_(vessel, call);
	case SYS_getrusage:
		return getrusage_(vessel, call);
	case SYS_nanosleep:
		return nanosleep_(vessel, call, call->args[0], call->args[1]);
	case SYS_clock_nanosleep:
		return clock_nanosleep_(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
}
