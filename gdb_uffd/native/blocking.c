/* blocking.c - system calls that wait.  Nobody else runs who could end a wait: one without a time limit
 * is told instead of suffered, one with a limit is over as soon as the recorded clock has
 * been moved on. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <time.h>

#include "answer.h"
#include "user_memory.h"
#include "vessel.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define FUTEX_COMMAND 0x7f
#define FOR_EVER INT64_MAX
#define PASSES_MAX 1000 /* how often a lock is passed before it counts as a wait after all */

static int waits(struct vessel *vessel, struct registers *regs, struct run *run, uint64_t address)
{
	run->end = RUN_WAITING;
	run->call = (int64_t)NUMBER(regs);
	run->address = address;
	return policy_stand_before(vessel, regs, run);
}

/* The wait of `ns` is over at once. */
static int over(struct vessel *vessel, struct registers *regs, int64_t ns, int64_t result)
{
	answer_pass(vessel, (uint64_t)ns);
	return policy_skip(vessel, regs, result);
}

/* Nanoseconds that a futex call waits; its time limit is absolute but for FUTEX_WAIT. */
static int futex_limit(struct vessel *vessel, const struct registers *regs, int64_t *ns)
{
	int command = (int)ARGUMENT(regs, 1) & FUTEX_COMMAND;
	bool realtime = (ARGUMENT(regs, 1) & FUTEX_CLOCK_REALTIME) || command == FUTEX_LOCK_PI;
	int64_t now;

	if (!ARGUMENT(regs, 3)) {
		*ns = FOR_EVER;
		return 0;
	}
	int rc = answer_load_timespec(vessel, ARGUMENT(regs, 3), ns);
	if (rc < 0 || command == FUTEX_WAIT)
		return rc;
	answer_clock(vessel, realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
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

/* A mutex of glibc's that a recorded thread holds: its owner must go, too. */
static bool is_recorded(const struct vessel *vessel, int32_t tid)
{
	for (uint32_t i = 0; i < vessel->tid_count; i++)
		if (vessel->tids[i] == tid)
			return true;
	return false;
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

	if (is_recorded(vessel, owner))
		return rc < 0 || store_word(vessel, address + 8, 0) < 0 ? -EFAULT : owner;
	for (int i = 0; rc == 0 && i < 2; i++) {
		uint64_t lock = address - inside[i];
		owner = load_word(vessel, lock + 24);
		if (!is_recorded(vessel, owner))
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

/* The kernel would put the vessel's own TID into the word. */
static int priority_inheriting(struct vessel *vessel, struct registers *regs, uint32_t value, bool *done)
{
	int command = (int)ARGUMENT(regs, 1) & FUTEX_COMMAND;
	uint32_t next = command == FUTEX_UNLOCK_PI ? 0 : (uint32_t)vessel->record.tid;
	int64_t result = 0;

	*done = true;
	if (command == FUTEX_UNLOCK_PI ? (value & FUTEX_TID_MASK) != (uint32_t)vessel->record.tid : value != 0) {
		if (command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2) {
			if ((value & FUTEX_TID_MASK) == (uint32_t)vessel->record.tid)
				return policy_skip(vessel, regs, -EDEADLK);
			*done = false;
			return 0;
		}
		return policy_skip(vessel, regs, command == FUTEX_UNLOCK_PI ? -EPERM : -EAGAIN);
	}
	if (user_store(vessel->pager, ARGUMENT(regs, 0), &next, sizeof(next)) < 0)
		result = -EFAULT;
	return policy_skip(vessel, regs, result);
}

int blocking_futex(struct vessel *vessel, struct registers *regs, struct run *run)
{
	int command = (int)ARGUMENT(regs, 1) & FUTEX_COMMAND;
	bool lock = command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2 || command == FUTEX_UNLOCK_PI ||
		    command == FUTEX_TRYLOCK_PI;
	uint32_t value;
	int64_t ns;

	if (!lock && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
		return command == FUTEX_WAIT_REQUEUE_PI ? policy_refuse(vessel, regs, ENOSYS) : 0;
	if (ARGUMENT(regs, 0) & 3)
		return policy_skip(vessel, regs, -EINVAL);
	if (user_load(vessel->pager, ARGUMENT(regs, 0), &value, sizeof(value)) < 0)
		return policy_skip(vessel, regs, -EFAULT);
	if (lock) {
		bool done;
		int rc = priority_inheriting(vessel, regs, value, &done);
		if (done || rc < 0)
			return rc;
	} else if (value != (uint32_t)ARGUMENT(regs, 2)) {
		return policy_skip(vessel, regs, -EAGAIN);
	}
	int rc = futex_limit(vessel, regs, &ns);
	if (rc < 0)
		return policy_skip(vessel, regs, rc);
	if (pass(vessel, ARGUMENT(regs, 0), lock ? FUTEX_WAITERS | value : value)) {
		if (!lock)
			return policy_skip(vessel, regs, 0);
		return priority_inheriting(vessel, regs, 0, &lock);
	}
	if (ns == FOR_EVER)
		return waits(vessel, regs, run, ARGUMENT(regs, 0));
	if (vessel->policy.real_clock && !lock)
		return 0;
	return over(vessel, regs, ns, -ETIMEDOUT);
}

/* What poll(2) says of a descriptor of the program's. */
static short ready(const struct opened *file)
{
	if (!file)
		return POLLNVAL;
	switch (file->kind) {
	case OPENED_OUTPUT:
		return POLLOUT | POLLWRNORM;
	case OPENED_INPUT:
		return POLLIN | POLLRDNORM;
	case OPENED_SOCKET:
		return POLLOUT | POLLHUP;
	case OPENED_PATH:
		return POLLNVAL;
	default:
		return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	}
}

/* After a look that found nothing ready. */
static int nothing_ready(struct vessel *vessel, struct registers *regs, struct run *run, int64_t ns,
			 uint64_t descriptors)
{
	if (ns == FOR_EVER)
		return waits(vessel, regs, run, ARGUMENT(regs, 0));
	if (vessel->policy.real_clock && ns && !descriptors)
		return 0;
	return over(vessel, regs, ns, 0);
}

int blocking_poll(struct vessel *vessel, struct registers *regs, struct run *run)
{
	struct system_call call = {.nr = NUMBER(regs), .args = {ARGUMENT(regs, 0), ARGUMENT(regs, 1), ARGUMENT(regs, 2)}, .pc = PC(regs)};
	int64_t ns = (int)ARGUMENT(regs, 2) < 0 ? FOR_EVER : (int64_t)ARGUMENT(regs, 2) * 1000000;
	int count = 0, rc = 0;

	if (ARGUMENT(regs, 1) > DESCRIPTORS_MAX)
		return policy_skip(vessel, regs, -EINVAL);
	if (NUMBER(regs) == SYS_ppoll) {
		ns = FOR_EVER;
		rc = ARGUMENT(regs, 2) ? answer_load_timespec(vessel, ARGUMENT(regs, 2), &ns) : 0;
	}
	for (uint64_t i = 0; rc == 0 && i < ARGUMENT(regs, 1); i++) {
		struct pollfd one;
		uint64_t at = ARGUMENT(regs, 0) + i * sizeof(one);
		rc = user_load(vessel->pager, at, &one, sizeof(one));
		if (rc < 0)
			break;
		struct opened *file = desk_find(&vessel->desk, one.fd);
		if (one.fd >= 0 && !file)
			answer_bad_descriptor(vessel, &call, one.fd);
		one.revents = one.fd < 0 ? 0 : (short)(ready(file) & (one.events | POLLNVAL | POLLHUP | POLLERR));
		count += one.revents != 0;
		rc = user_store(vessel->pager, at, &one, sizeof(one));
	}
	if (rc < 0 || count)
		return policy_skip(vessel, regs, rc < 0 ? rc : count);
	return nothing_ready(vessel, regs, run, ns, ARGUMENT(regs, 1));
}

/* The nanoseconds of select's struct timeval or pselect6's struct timespec. */
static int select_limit(struct vessel *vessel, const struct registers *regs, int64_t *ns)
{
	struct timeval time;

	*ns = FOR_EVER;
	if (!ARGUMENT(regs, 4))
		return 0;
	if (NUMBER(regs) == SYS_pselect6)
		return answer_load_timespec(vessel, ARGUMENT(regs, 4), ns);
	if (user_load(vessel->pager, ARGUMENT(regs, 4), &time, sizeof(time)) < 0)
		return -EFAULT;
	if (time.tv_sec < 0 || time.tv_usec < 0)
		return -EINVAL;
	int64_t seconds = time.tv_sec < 1 << 30 ? time.tv_sec : 1 << 30;
	*ns = seconds * 1000000000 + time.tv_usec % 1000000 * 1000;
	return 0;
}

int blocking_select(struct vessel *vessel, struct registers *regs, struct run *run)
{
	static const short wanted[3] = {POLLIN | POLLHUP, POLLOUT, 0};
	struct system_call call = {.nr = NUMBER(regs), .args = {ARGUMENT(regs, 0), ARGUMENT(regs, 1), ARGUMENT(regs, 2)}, .pc = PC(regs)};
	uint64_t sets[3] = {ARGUMENT(regs, 1), ARGUMENT(regs, 2), ARGUMENT(regs, 3)};
	int n = (int)ARGUMENT(regs, 0), count = 0;
	int64_t ns, bad = -1;
	fd_set in[3], out[3];

	memset(in, 0, sizeof(in));
	memset(out, 0, sizeof(out));
	if (n < 0)
		return policy_skip(vessel, regs, -EINVAL);
	n = n < DESCRIPTORS_MAX ? n : DESCRIPTORS_MAX;
	size_t bytes = ((size_t)n + 63) / 64 * 8;
	int rc = select_limit(vessel, regs, &ns);
	for (int k = 0; rc == 0 && k < 3; k++) {
		if (!sets[k])
			continue;
		rc = user_load(vessel->pager, sets[k], &in[k], bytes);
		for (int i = 0; rc == 0 && i < n; i++) {
			if (!FD_ISSET(i, &in[k]))
				continue;
			struct opened *file = desk_find(&vessel->desk, i);
			if (!file || file->kind == OPENED_PATH)
				bad = i;
			else if (ready(file) & wanted[k]) {
				FD_SET(i, &out[k]);
				count++;
			}
		}
	}
	if (rc == 0 && bad >= 0)
		rc = (int)answer_bad_descriptor(vessel, &call, bad);
	if (rc == 0 && !count && ns)
		if (ns == FOR_EVER || (vessel->policy.real_clock && !n))
			return nothing_ready(vessel, regs, run, ns, (uint64_t)n);
	for (int k = 0; rc == 0 && k < 3; k++)
		if (sets[k])
			rc = user_store(vessel->pager, sets[k], &out[k], bytes);
	if (rc < 0 || count)
		return policy_skip(vessel, regs, rc < 0 ? rc : count);
	return over(vessel, regs, ns, 0);
}

/* Signals that are pending for the vessel, and those that it blocks. */
static void read_signals(const struct vessel *vessel, uint64_t *pending, uint64_t *blocked)
{
	char path[64], line[256];
	uint64_t mask;

	*pending = *blocked = 0;
	snprintf(path, sizeof(path), "/proc/%d/status", vessel->pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "SigPnd: %lx", &mask) == 1 || sscanf(line, "ShdPnd: %lx", &mask) == 1)
			*pending |= mask;
		if (sscanf(line, "SigBlk: %lx", &mask) == 1)
			*blocked = mask;
	}
	fclose(file);
}

int blocking_signal(struct vessel *vessel, struct registers *regs, struct run *run)
{
	uint64_t pending, blocked, set = 0;
	int64_t ns = FOR_EVER;
	int rc = 0;

	read_signals(vessel, &pending, &blocked);
	if (NUMBER(regs) != SYS_pause)
		rc = user_load(vessel->pager, ARGUMENT(regs, 0), &set, sizeof(set));
	if (rc == 0 && NUMBER(regs) == SYS_rt_sigtimedwait && ARGUMENT(regs, 2))
		rc = answer_load_timespec(vessel, ARGUMENT(regs, 2), &ns);
	if (rc < 0)
		return policy_skip(vessel, regs, rc);
	uint64_t ends = NUMBER(regs) == SYS_rt_sigtimedwait ? set :
			NUMBER(regs) == SYS_pause	      ? ~blocked :
								~set;
	if (pending & ends) /* it is there already */
		return 0;
	if (ns == FOR_EVER)
		return waits(vessel, regs, run, 0);
	return vessel->policy.real_clock ? 0 : over(vessel, regs, ns, -EAGAIN);
}
