/* clock.c - the recorded clock.  It begins at the snapshot and goes on as the program's waits, sleeps and readings
 * pass, so that a call sees the same times whenever it is repeated. */
#define _GNU_SOURCE
#include "process/clock.h"

#include <errno.h>
#include <time.h>

#include "process/user.h"
#include "process/vessel.h"

#define SECOND_NS 1000000000ll
#define TAI_OFFSET_NS (37 * SECOND_NS) /* since 2017 (IERS Bulletin C) */

void clock_pass(struct vessel *vessel, uint64_t ns)
{
	uint64_t *elapsed = &vessel->kernel_state.elapsed_ns;

	*elapsed = ns > CLOCK_LONGEST_NS - *elapsed ? CLOCK_LONGEST_NS : *elapsed + ns;
}

int64_t clock_now(struct vessel *vessel, int clock, int64_t *ns)
{
	const struct identity *identity = &vessel->identity;
	int64_t elapsed = (int64_t)vessel->kernel_state.elapsed_ns;

	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
	case CLOCK_REALTIME_ALARM:
		*ns = identity->realtime_ns + elapsed;
		return 0;
	case CLOCK_TAI:
		*ns = identity->realtime_ns + elapsed + TAI_OFFSET_NS;
		return 0;
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		*ns = identity->monotonic_ns + elapsed;
		return 0;
	case CLOCK_PROCESS_CPUTIME_ID:
	case CLOCK_THREAD_CPUTIME_ID:
		*ns = identity->cpu_ns + elapsed;
		return 0;
	}
	/* CPU clocks of a process or thread: ~number << 3 | kind (Linux, posix-timers.h). */
	int who = ~(clock >> 3);
	if (clock >= 0 || (clock & 3) == 3 || (who && who != identity->pid && who != identity->tid))
		return -EINVAL;
	*ns = identity->cpu_ns + elapsed;
	return 0;
}

int clock_load_timespec(struct vessel *vessel, uint64_t address, int64_t *ns)
{
	struct timespec time;

	if (user_load(vessel->pager, address, &time, sizeof(time)) < 0)
		return -EFAULT;
	if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= SECOND_NS)
		return -EINVAL;
	*ns = time.tv_sec >= CLOCK_LONGEST_NS / SECOND_NS ? CLOCK_LONGEST_NS : time.tv_sec * SECOND_NS + time.tv_nsec;
	return 0;
}
