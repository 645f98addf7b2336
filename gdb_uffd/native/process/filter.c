/* filter.c - the seccomp filter that the rules come to. */
#define _GNU_SOURCE
#include "process/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "process/vessel.h"

#define FUTEX_COMMAND 0x7f  /* FUTEX_CMD_MASK without the sign */

/* futex(2) operations that only wake: nobody waits, and nothing else happens. */
static const uint32_t waking[] = {FUTEX_WAKE, FUTEX_WAKE_BITSET};
/* ... and that read or change the futex on the way. */
static const uint32_t moving[] = {FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP};

struct filter {
	struct sock_filter *out;
	unsigned used, room;
};

static void put(struct filter *filter, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
	if (filter->used < filter->room)
		filter->out[filter->used] = (struct sock_filter){code, yes, no, k};
	filter->used++;
}

static void put_return(struct filter *filter, uint32_t action)
{
	put(filter, BPF_RET | BPF_K, action, 0, 0);
}

/* `action` for the numbers [first, last]. */
static void put_range(struct filter *filter, uint32_t first, uint32_t last, uint32_t action)
{
	if (first == last) {
		put(filter, BPF_JMP | BPF_JEQ | BPF_K, first, 0, 1);
	} else {
		put(filter, BPF_JMP | BPF_JGE | BPF_K, first, 0, 2);
		put(filter, BPF_JMP | BPF_JGT | BPF_K, last, 1, 0);
	}
	put_return(filter, action);
}

static void put_futex(struct filter *filter, bool user_mode_only, bool notify)
{
	unsigned start = filter->used;

	put(filter, BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 0);
	put(filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]), 0, 0);
	put(filter, BPF_ALU | BPF_AND | BPF_K, FUTEX_COMMAND, 0, 0);
	for (unsigned i = 0; i < sizeof(waking) / sizeof(waking[0]); i++)
		put_range(filter, waking[i], waking[i], SECCOMP_RET_ALLOW);
	for (unsigned i = 0; !user_mode_only && i < sizeof(moving) / sizeof(moving[0]); i++)
		put_range(filter, moving[i], moving[i], SECCOMP_RET_ALLOW);
	put_return(filter, notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_TRACE);
	if (start < filter->room)
		filter->out[start].jf = (uint8_t)(filter->used - start - 1);
}

/* Whether the kernel can carry it out without our knowing. */
static bool passes(const struct vessel *vessel, uint32_t nr)
{
	const struct rule *rule = &vessel->policy.rules[nr];
	bool memory = nr == SYS_rt_sigreturn;

	for (int i = 0; i < 6; i++)
		memory |= rule->kind[i] != ARGUMENT_NUMBER;
	return rule->action == POLICY_RUN && !(memory && vessel->pager->user_mode_only);
}

int filter_build(const struct vessel *vessel, struct sock_fprog *program, unsigned room, bool notify)
{
	struct filter filter = {program->filter, 0, room};
	const struct rule *rules = vessel->policy.rules;

	put(&filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	put(&filter, BPF_JMP | BPF_JEQ | BPF_K, ARCH_AUDIT, 1, 0);
	put_return(&filter, SECCOMP_RET_TRACE | ARCH_OTHER_TABLE);
	put(&filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	/* No call, or one that was taken back at its entry (catch.c), which call_leave passes. */
	put_range(&filter, UINT32_MAX, UINT32_MAX, SECCOMP_RET_TRACE);
#ifdef ARCH_X32_BIT
	put(&filter, BPF_JMP | BPF_JGE | BPF_K, ARCH_X32_BIT, 0, 1);
	put_return(&filter, SECCOMP_RET_TRACE | TABLE_X32);
#endif
	if (rules[SYS_futex].action == POLICY_ANSWER)
		put_futex(&filter, vessel->pager->user_mode_only, notify);
	for (uint32_t nr = 0; nr < RULES; nr++) {
		bool pass = passes(vessel, nr);
		uint32_t first = nr;
		if (!pass && !(rules[nr].traced && notify))
			continue;
		while (nr + 1 < RULES && passes(vessel, nr + 1) == pass && rules[nr + 1].traced == rules[first].traced)
			nr++;
		put_range(&filter, first, nr, pass ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRACE);
	}
	put_return(&filter, notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_TRACE);
	program->len = (unsigned short)filter.used;
	return filter.used > room ? -E2BIG : 0;
}
