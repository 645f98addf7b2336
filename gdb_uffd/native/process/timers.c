#define _GNU_SOURCE
#include "process/timers.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "kernel/now.h"
#include "process/clock.h"
#include "process/vessel.h"

#define TURNS_MAX 10000 /* signals that nobody takes while a wait passes */

static uint64_t count_of(const struct kernel_state *state, const struct timer *timer)
{
	return timer->cpu ? state->ran_ns : state->elapsed_ns;
}

static bool is_armed(const struct kernel_state *state)
{
	for (int i = 0; i < TIMERS_MAX; i++)
		if (state->timers[i].kind && state->timers[i].due)
			return true;
	return false;
}

void timers_begin(struct vessel *vessel)
{
	vessel->ran_from_ns = now_ns();
}

void timers_account(struct vessel *vessel)
{
	struct kernel_state *state = &vessel->kernel_state;

	if (!vessel->ran_from_ns || !is_armed(state))
		return;
	uint64_t now = now_ns(), ran = now - vessel->ran_from_ns;
	vessel->ran_from_ns = now;
	state->ran_ns += ran;
	clock_pass(vessel, ran);
}

void timers_end(struct vessel *vessel)
{
	timers_account(vessel);
	vessel->ran_from_ns = 0;
}

static void send(struct vessel *vessel, int id, struct timer *timer, uint64_t times)
{
	siginfo_t info = {.si_signo = timer->signal, .si_code = SI_KERNEL};

	timer->overrun = times - 1 < INT32_MAX ? (uint32_t)(times - 1) : INT32_MAX;
	if (timer->silent)
		return;
	if (timer->kind == TIMER_POSIX) {
		info.si_code = SI_TIMER;
		info.si_timerid = id - 3;
		info.si_overrun = (int)timer->overrun;
		info.si_value.sival_ptr = (void *)timer->value;
	}
	signals_send(vessel, &info);
	vessel->kernel_changed = true; /* it may wait there still when the call ends */
}

/* True when a descriptor became readable. */
static bool fire(struct vessel *vessel)
{
	struct kernel_state *state = &vessel->kernel_state;
	bool ticked = false;

	for (int i = 0; i < TIMERS_MAX; i++) {
		struct timer *timer = &state->timers[i];
		uint64_t now = count_of(state, timer), times = 1;
		if (!timer->kind || !timer->due || timer->due > now)
			continue;
		if (timer->every)
			times += (now - timer->due) / timer->every;
		timer->due = timer->every ? timer->due + times * timer->every : 0;
		if (timer->kind == TIMER_DESCRIPTOR) {
			timer->ticks += times;
			ticked = true;
		} else {
			send(vessel, i, timer, times);
		}
	}
	return ticked;
}

void timers_fire(struct vessel *vessel)
{
	fire(vessel);
}

static uint64_t nearest(const struct kernel_state *state, bool cpu)
{
	uint64_t left = UINT64_MAX;

	for (int i = 0; i < TIMERS_MAX; i++) {
		const struct timer *timer = &state->timers[i];
		uint64_t now = count_of(state, timer);
		if (!timer->kind || !timer->due || (timer->cpu && !cpu))
			continue;
		uint64_t own = timer->due > now ? timer->due - now : 0;
		left = own < left ? own : left;
	}
	return left;
}

uint64_t timers_left(const struct vessel *vessel)
{
	return nearest(&vessel->kernel_state, true);
}

/* Signals that end a wait: neither blocked nor ignored (signal(7)). */
static bool is_interrupted(const struct vessel *vessel)
{
	const uint64_t harmless = 1ull << (SIGCHLD - 1) | 1ull << (SIGURG - 1) | 1ull << (SIGWINCH - 1) | 1ull << (SIGCONT - 1);
	struct signal_sets sets;

	signals_read(vessel, &sets);
	return sets.pending & ~sets.blocked & ~sets.ignored & (sets.handled | ~harmless);
}

static bool is_pending(const struct vessel *vessel, uint64_t ends)
{
	struct signal_sets sets;

	signals_read(vessel, &sets);
	return sets.pending & ends;
}

static int pass(struct vessel *vessel, int64_t *ns, bool ticks, uint64_t ends)
{
	for (int turns = 0; turns < TURNS_MAX; turns++) {
		uint64_t left = nearest(&vessel->kernel_state, false);
		if (left == UINT64_MAX && *ns == FOR_EVER)
			return PASSED_NEVER;
		if (left > (uint64_t)*ns)
			break;
		clock_pass(vessel, left);
		if (*ns != FOR_EVER)
			*ns -= (int64_t)left;
		if (fire(vessel) && ticks)
			return PASSED_TICKED;
		if (ends ? is_pending(vessel, ends) : is_interrupted(vessel))
			return PASSED_INTERRUPTED;
	}
	if (*ns == FOR_EVER)
		return PASSED_NEVER;
	clock_pass(vessel, (uint64_t)*ns);
	*ns = 0;
	return PASSED_WHOLE;
}

int timers_pass(struct vessel *vessel, int64_t *ns, bool ticks)
{
	return pass(vessel, ns, ticks, 0);
}

bool timers_pass_until(struct vessel *vessel, int64_t *ns, uint64_t ends)
{
	return pass(vessel, ns, false, ends) == PASSED_INTERRUPTED;
}

void timers_disarm(struct vessel *vessel)
{
	for (int i = 0; i < TIMERS_MAX; i++) {
		struct timer *timer = &vessel->kernel_state.timers[i];
		if (timer->kind != TIMER_DESCRIPTOR)
			timer->due = 0;
	}
}
