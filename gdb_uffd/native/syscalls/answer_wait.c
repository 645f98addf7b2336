/* answer_wait.c - system calls that wait.  Nobody else runs who could end a wait: one without a time limit
 * is told instead of suffered, one with a limit is over as soon as the recorded clock has
 * been moved on. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "process/clock.h"
#include "process/timers.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/pending.h"
#include "syscalls/refuse.h"
#include "syscalls/waiting.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define FUTEX_COMMAND 0x7f
#define PASSES_MAX 1000 /* how often a lock is passed before it counts as a wait after all */

/* The wait of `ns` is over at once. */
static int64_t over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result)
{
	int64_t left = ns;

	if (timers_pass(vessel, &left, false) == PASSED_INTERRUPTED)
		return -EINTR;
	return waiting_over(vessel, call, ns, result);
}

/* Nanoseconds that a futex call waits; its time limit is absolute but for FUTEX_WAIT. */
static int futex_limit(struct vessel *vessel, const struct system_call *call, int64_t *ns)
{
	int command = (int)call->args[1] & FUTEX_COMMAND;
	bool realtime = (call->args[1] & FUTEX_CLOCK_REALTIME) || command == FUTEX_LOCK_PI;
	int64_t now;

	if (!call->args[3]) {
		*ns = FOR_EVER;
		return 0;
	}
	int rc = clock_load_timespec(vessel, call->args[3], ns);
	if (rc < 0 || command == FUTEX_WAIT)
		return rc;
	clock_now(vessel, realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
	*ns = *ns > now ? *ns - now : 0;
	return 0;
}

/* Whether the futex is a lock that somebody holds: glibc's low-level locks wait while it is 2, its
 * reader-writer locks while it is 2 or 3, robust locks and musl's while it names its owner and
 * has FUTEX_WAITERS set. */
static bool is_lock(uint32_t value)
{
	return value == 2 || value == 3 || ((value & FUTEX_WAITERS) && (value & FUTEX_TID_MASK));
}

static int32_t load_word(struct vessel *vessel, uint64_t address)
{
	int32_t word = 0;

	return user_load(vessel->pager, address, &word, sizeof(word)) < 0 ? 0 : word;
}

static int store_word(struct vessel *vessel, uint64_t address, int32_t word)
{
	return user_store(vessel->pager, address, &word, sizeof(word));
}

/* What glibc keeps beside a lock's futex, as if nobody held it.  pthread_mutex_t: __owner 8 bytes on.
 * pthread_rwlock_t: __readers with two bits of the writer's, __wrphase_futex at 8, __writers_futex at
 * 12, __cur_writer at 24.  The owner, or 0; -EFAULT. */
static int set_free(struct vessel *vessel, uint64_t address)
{
	static const uint64_t inside[] = {8, 12}; /* where the futex lies in a reader-writer lock */
	int32_t owner = load_word(vessel, address + 8);
	int rc = store_word(vessel, address, 0);

	if (vessel_has_thread(vessel, owner))
		return rc < 0 || store_word(vessel, address + 8, 0) < 0 ? -EFAULT : owner;
	for (int i = 0; rc == 0 && i < 2; i++) {
		uint64_t lock = address - inside[i];
		owner = load_word(vessel, lock + 24);
		if (!vessel_has_thread(vessel, owner))
			continue;
		if (store_word(vessel, lock, load_word(vessel, lock) & ~3) < 0 || store_word(vessel, lock + 8, 0) < 0 ||
		    store_word(vessel, lock + 12, 0) < 0 || store_word(vessel, lock + 24, 0) < 0)
			return -EFAULT;
		return owner;
	}
	return rc;
}

/* `threads ignore-locks`: the lock appears free. */
static bool pass(struct vessel *vessel, uint64_t address, uint32_t value)
{
	struct passed *passed = NULL;

	if (!vessel->policy.ignore_locks || !is_lock(value))
		return false;
	for (uint32_t i = 0; i < vessel->passed_count && !passed; i++)
		if (vessel->passed[i].address == address)
			passed = &vessel->passed[i];
	if (!passed) {
		if (vessel->passed_count == PASSED_MAX)
			return false;
		passed = &vessel->passed[vessel->passed_count++];
		*passed = (struct passed){.address = address, .value = value};
	}
	if (passed->times++ == PASSES_MAX)
		return false;
	int owner = set_free(vessel, address);
	passed->owner = owner > 0 ? owner : passed->owner;
	return owner >= 0;
}

static bool takes_priority(int command)
{
	return command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2;
}

/* A priority-inheriting lock whose word is `value`; the kernel would put the vessel's own TID into it.
 * ANSWER_LET: somebody else holds it. */
static int64_t priority_lock(struct vessel *vessel, const struct system_call *call, uint32_t value)
{
	int command = (int)call->args[1] & FUTEX_COMMAND;
	uint32_t self = (uint32_t)vessel->identity.tid, owner = value & FUTEX_TID_MASK;
	uint32_t next = command == FUTEX_UNLOCK_PI ? 0 : self;

	if (command == FUTEX_UNLOCK_PI ? owner != self : owner != 0) {
		if (takes_priority(command))
			return owner == self ? -EDEADLK : ANSWER_LET;
		return command == FUTEX_UNLOCK_PI ? -EPERM : -EAGAIN;
	}
	return user_store(vessel->pager, call->args[0], &next, sizeof(next));
}

static int64_t futex(struct vessel *vessel, const struct system_call *call)
{
	int command = (int)call->args[1] & FUTEX_COMMAND;
	bool lock = takes_priority(command) || command == FUTEX_UNLOCK_PI || command == FUTEX_TRYLOCK_PI;
	uint32_t value;
	int64_t ns;

	if (call->args[1] & 0xffffffffu & ~(uint64_t)(FUTEX_COMMAND | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME))
		return -ENOSYS;
	if (command == FUTEX_WAIT_REQUEUE_PI || command == FUTEX_CMP_REQUEUE_PI)
		return refuse_note(vessel, call, ENOSYS);
	if (!lock && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
		return ANSWER_LET; /* it wakes, or is none */
	if (call->args[0] & 3)
		return -EINVAL;
	if (user_load(vessel->pager, call->args[0], &value, sizeof(value)) < 0)
		return -EFAULT;
	if (!lock && value != (uint32_t)call->args[2])
		return -EAGAIN;
	int64_t taken = lock ? priority_lock(vessel, call, value) : ANSWER_LET;
	if (taken != ANSWER_LET)
		return taken;
	int rc = futex_limit(vessel, call, &ns);
	if (rc < 0)
		return rc;
	if (pass(vessel, call->args[0], lock ? FUTEX_WAITERS | value : value))
		return lock ? priority_lock(vessel, call, 0) : 0;
	if (ns == FOR_EVER)
		return waiting_for_ever(vessel, call, call->args[0]);
	if (vessel->policy.real_clock && !lock)
		return ANSWER_LET;
	return over(vessel, call, ns, -ETIMEDOUT);
}

static int64_t poll_(struct vessel *vessel, const struct system_call *call)
{
	int64_t ns = (int)call->args[2] < 0 ? FOR_EVER : (int64_t)(int)call->args[2] * 1000000;
	int count = 0, rc = 0;

	if (call->args[1] > DESCRIPTORS_MAX)
		return -EINVAL;
	if (call->nr == SYS_ppoll) {
		ns = FOR_EVER;
		rc = call->args[2] ? clock_load_timespec(vessel, call->args[2], &ns) : 0;
	}
again:
	for (uint64_t i = 0; rc == 0 && i < call->args[1]; i++) {
		struct pollfd one;
		uint64_t at = call->args[0] + i * sizeof(one);
		rc = user_load(vessel->pager, at, &one, sizeof(one));
		if (rc < 0)
			break;
		struct opened *file = channel_find(vessel, one.fd);
		bool silent = one.fd < 0 || (!file && channel_is_silent(vessel, one.fd));
		if (!silent && !file)
			refuse_descriptor(vessel, call, one.fd);
		one.revents = silent ? 0 : (short)(channel_ready(vessel, file) & (one.events | POLLNVAL | POLLHUP | POLLERR));
		count += one.revents != 0;
		rc = user_store(vessel->pager, at, &one, sizeof(one));
	}
	if (rc < 0 || count)
		return rc < 0 ? rc : count;
	int64_t result;
	if (!waiting_nothing_ready(vessel, call, &ns, call->args[1], &result))
		goto again;
	return result;
}

/* The nanoseconds of select's struct timeval or pselect6's struct timespec. */
static int select_limit(struct vessel *vessel, const struct system_call *call, int64_t *ns)
{
	struct timeval time;

	*ns = FOR_EVER;
	if (!call->args[4])
		return 0;
	if (call->nr == SYS_pselect6)
		return clock_load_timespec(vessel, call->args[4], ns);
	if (user_load(vessel->pager, call->args[4], &time, sizeof(time)) < 0)
		return -EFAULT;
	if (time.tv_sec < 0 || time.tv_usec < 0)
		return -EINVAL;
	int64_t seconds = time.tv_sec < 1 << 30 ? time.tv_sec : 1 << 30;
	*ns = seconds * 1000000000 + time.tv_usec % 1000000 * 1000;
	return 0;
}

static int64_t select_(struct vessel *vessel, const struct system_call *call)
{
	static const short wanted[3] = {POLLIN | POLLHUP, POLLOUT, 0};
	uint64_t sets[3] = {call->args[1], call->args[2], call->args[3]};
	int n = (int)call->args[0], count = 0;
	int64_t ns, bad = -1, result;
	fd_set in[3], out[3];

	memset(in, 0, sizeof(in));
	if (n < 0)
		return -EINVAL;
	n = n < DESCRIPTORS_MAX ? n : DESCRIPTORS_MAX;
	size_t bytes = ((size_t)n + 63) / 64 * 8;
	int rc = select_limit(vessel, call, &ns);
again:
	memset(out, 0, sizeof(out));
	for (int k = 0; rc == 0 && k < 3; k++) {
		if (!sets[k])
			continue;
		rc = user_load(vessel->pager, sets[k], &in[k], bytes);
		for (int i = 0; rc == 0 && i < n; i++) {
			if (!FD_ISSET(i, &in[k]))
				continue;
			struct opened *file = channel_find(vessel, i);
			if (!file && channel_is_silent(vessel, i))
				continue;
			if (!file || file->kind == OPENED_PATH)
				bad = i;
			else if (channel_ready(vessel, file) & wanted[k]) {
				FD_SET(i, &out[k]);
				count++;
			}
		}
	}
	if (rc == 0 && bad >= 0)
		rc = (int)refuse_descriptor(vessel, call, bad);
	if (rc == 0 && !count && ns) {
		if (!waiting_nothing_ready(vessel, call, &ns, (uint64_t)n, &result))
			goto again;
		if (result)
			return result;
	}
	for (int k = 0; rc == 0 && k < 3; k++)
		if (sets[k])
			rc = user_store(vessel->pager, sets[k], &out[k], bytes);
	return rc < 0 ? rc : count;
}

static int64_t signal_(struct vessel *vessel, const struct system_call *call)
{
	struct signal_sets sets;
	uint64_t set = 0;
	int64_t ns = FOR_EVER;
	int rc = 0;

	signals_read(vessel, &sets);
	if (call->nr != SYS_pause)
		rc = user_load(vessel->pager, call->args[0], &set, sizeof(set));
	if (rc == 0 && call->nr == SYS_rt_sigtimedwait && call->args[2])
		rc = clock_load_timespec(vessel, call->args[2], &ns);
	if (rc < 0)
		return rc;
	uint64_t ends = call->nr == SYS_rt_sigtimedwait ? set | ~sets.blocked :
			call->nr == SYS_pause	      ? ~sets.blocked :
								~set;
	if (!(sets.pending & ends) && timers_pass_until(vessel, &ns, ends))
		signals_read(vessel, &sets);
	if (sets.pending & set & ends && call->nr == SYS_rt_sigtimedwait)
		return pending_take(vessel, call);
	if (sets.pending & ends) /* it is there already */
		return ANSWER_LET;
	if (ns == FOR_EVER)
		return waiting_told(vessel, call, 0);
	return vessel->policy.real_clock ? ANSWER_LET : -EAGAIN;
}

int64_t answer_wait(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_futex:
		return futex(vessel, call);
	case SYS_poll:
	case SYS_ppoll:
		return poll_(vessel, call);
	case SYS_select:
	case SYS_pselect6:
		return select_(vessel, call);
	case SYS_pause:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
		return signal_(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
}
