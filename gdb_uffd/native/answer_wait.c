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

#include "answer.h"
#include "user_memory.h"
#include "vessel.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define FUTEX_COMMAND 0x7f
#define ERESTARTSYS 512 /* the kernel's own (include/linux/errno.h): no program sees it */
#define CUTS_MAX 1000 /* how often timers cut one wait short before it counts as one without an end */
#define WAITS_MAX 1000
#define WAITED_MAX (3600ll * 1000000000) /* an hour */
#define PASSES_MAX 1000 /* how often a lock is passed before it counts as a wait after all */

int64_t answer_interrupted(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	bool same = vessel->cut_call == (int64_t)call->nr && vessel->cut_address == address;

	vessel->cut_call = (int64_t)call->nr;
	vessel->cut_address = address;
	vessel->cuts = same ? vessel->cuts + 1 : 0;
	if (vessel->cuts >= CUTS_MAX) {
		vessel->cuts = 0;
		return answer_told(vessel, call, address);
	}
	/* The kernel makes it EINTR, or goes back to the call behind a handler with SA_RESTART. */
	return vessel->listener >= 0 ? -ERESTARTSYS : -EINTR;
}

int64_t answer_told(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	vessel->wait_call = (int64_t)call->nr;
	vessel->wait_address = address;
	return ANSWER_WAITS;
}

int64_t answer_waits(struct vessel *vessel, const struct system_call *call, uint64_t address)
{
	int64_t ns = FOR_EVER;

	if (timers_pass(vessel, &ns, false) == PASSED_INTERRUPTED)
		return answer_interrupted(vessel, call, address);
	return answer_told(vessel, call, address);
}

int64_t answer_over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result)
{
	vessel->waited_ns += (uint64_t)(ns < WAITED_MAX ? ns : WAITED_MAX);
	if (++vessel->waits < WAITS_MAX || vessel->waited_ns < (uint64_t)WAITED_MAX)
		return result;
	vessel->waits = 0;
	vessel->waited_ns = 0;
	return answer_told(vessel, call, call->nr == SYS_futex ? call->args[0] : 0);
}

/* The wait of `ns` is over at once. */
static int64_t over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result)
{
	int64_t left = ns;

	if (timers_pass(vessel, &left, false) == PASSED_INTERRUPTED)
		return -EINTR;
	return answer_over(vessel, call, ns, result);
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
	int rc = answer_load_timespec(vessel, call->args[3], ns);
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
	uint32_t self = (uint32_t)vessel->record.tid, owner = value & FUTEX_TID_MASK;
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
		return policy_note_refusal(vessel, call, ENOSYS);
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
		return answer_waits(vessel, call, call->args[0]);
	if (vessel->policy.real_clock && !lock)
		return ANSWER_LET;
	return over(vessel, call, ns, -ETIMEDOUT);
}

bool answer_nothing_ready(struct vessel *vessel, const struct system_call *call, int64_t *ns, uint64_t descriptors,
			  int64_t *result)
{
	if (vessel->policy.real_clock && *ns && *ns != FOR_EVER && !descriptors) {
		*result = ANSWER_LET;
		return true;
	}
	int64_t wanted = *ns;
	switch (timers_pass(vessel, ns, true)) {
	case PASSED_WHOLE:
		*result = answer_over(vessel, call, wanted, 0);
		return true;
	case PASSED_TICKED:
		return false;
	case PASSED_NEVER:
		*result = answer_told(vessel, call, call->args[0]);
		return true;
	default:
		*result = answer_interrupted(vessel, call, call->args[0]);
		if (*result != ANSWER_WAITS) /* never made again by the kernel (signal(7)) */
			*result = -EINTR;
		return true;
	}
}

static int64_t poll_(struct vessel *vessel, const struct system_call *call)
{
	int64_t ns = (int)call->args[2] < 0 ? FOR_EVER : (int64_t)(int)call->args[2] * 1000000;
	int count = 0, rc = 0;

	if (call->args[1] > DESCRIPTORS_MAX)
		return -EINVAL;
	if (call->nr == SYS_ppoll) {
		ns = FOR_EVER;
		rc = call->args[2] ? answer_load_timespec(vessel, call->args[2], &ns) : 0;
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
			answer_bad_descriptor(vessel, call, one.fd);
		one.revents = silent ? 0 : (short)(channel_ready(vessel, file) & (one.events | POLLNVAL | POLLHUP | POLLERR));
		count += one.revents != 0;
		rc = user_store(vessel->pager, at, &one, sizeof(one));
	}
	if (rc < 0 || count)
		return rc < 0 ? rc : count;
	int64_t result;
	if (!answer_nothing_ready(vessel, call, &ns, call->args[1], &result))
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
		return answer_load_timespec(vessel, call->args[4], ns);
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
		rc = (int)answer_bad_descriptor(vessel, call, bad);
	if (rc == 0 && !count && ns) {
		if (!answer_nothing_ready(vessel, call, &ns, (uint64_t)n, &result))
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
		rc = answer_load_timespec(vessel, call->args[2], &ns);
	if (rc < 0)
		return rc;
	uint64_t ends = call->nr == SYS_rt_sigtimedwait ? set | ~sets.blocked :
			call->nr == SYS_pause	      ? ~sets.blocked :
								~set;
	if (!(sets.pending & ends) && timers_pass_until(vessel, &ns, ends))
		signals_read(vessel, &sets);
	if (sets.pending & set & ends && call->nr == SYS_rt_sigtimedwait)
		return signals_take(vessel, call);
	if (sets.pending & ends) /* it is there already */
		return ANSWER_LET;
	if (ns == FOR_EVER)
		return answer_told(vessel, call, 0);
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
