/* answer_limits.c - what the program may use of the machine, and which one it is on. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/refuse.h"

#define STACK_LIMIT (8ul << 20)

static int64_t limit(struct vessel *vessel, uint64_t which, uint64_t address)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	if (which >= RLIM_NLIMITS)
		return -EINVAL;
	if (which == RLIMIT_STACK)
		limit.rlim_cur = STACK_LIMIT;
	if (which == RLIMIT_NOFILE)
		limit.rlim_cur = limit.rlim_max = DESCRIPTORS_MAX;
	if (which == RLIMIT_CORE || which == RLIMIT_NICE || which == RLIMIT_RTPRIO)
		limit = (struct rlimit){0, 0};
	return address ? user_store(vessel->pager, address, &limit, sizeof(limit)) : 0;
}

static int64_t prlimit_(struct vessel *vessel, const struct system_call *call)
{
	if (!answer_is_self(vessel, call->args[0]) || call->args[2])
		return refuse_note(vessel, call, EPERM);
	return limit(vessel, (uint32_t)call->args[1], call->args[3]);
}

static int64_t affinity(struct vessel *vessel, const struct system_call *call)
{
	uint64_t one = 1; /* it has one CPU, number 0 */

	if (!answer_is_self(vessel, call->args[0]))
		return -ESRCH;
	if ((uint32_t)call->args[1] < sizeof(one) || (uint32_t)call->args[1] % sizeof(one))
		return -EINVAL;
	int64_t rc = user_store(vessel->pager, call->args[2], &one, sizeof(one));
	return rc < 0 ? rc : (int64_t)sizeof(one);
}

static int64_t machine(struct vessel *vessel, const struct system_call *call)
{
	struct sysinfo info;

	if (sysinfo(&info) < 0)
		return -errno;
	info.uptime = vessel->identity.monotonic_ns / 1000000000;
	return user_store(vessel->pager, call->args[0], &info, sizeof(info));
}

static int64_t about_scheduling(struct vessel *vessel, const struct system_call *call)
{
	struct sched_param none = {0};
	struct timespec slice = {0};
	struct { /* struct sched_attr, SCHED_ATTR_SIZE_VER0 */
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t times[3];
	} attributes = {.size = 48};

	if (!answer_is_self(vessel, call->args[0]))
		return -ESRCH;
	switch (call->nr) {
	case SYS_sched_getparam:
		return user_store(vessel->pager, call->args[1], &none, sizeof(none));
	case SYS_sched_rr_get_interval:
		return user_store(vessel->pager, call->args[1], &slice, sizeof(slice));
	case SYS_sched_getattr:
		if ((uint32_t)call->args[2] < sizeof(attributes))
			return -EINVAL;
		return user_store(vessel->pager, call->args[1], &attributes, sizeof(attributes));
	default:
		return SCHED_OTHER;
	}
}

static int64_t getcpu_(struct vessel *vessel, const struct system_call *call)
{
	uint32_t zero = 0;

	for (int i = 0; i < 2; i++)
		if (call->args[i] && user_store(vessel->pager, call->args[i], &zero, sizeof(zero)) < 0)
			return -EFAULT;
	return 0;
}

int64_t answer_limits(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_getpriority: /* 20 - nice (getpriority(2), "C library/kernel differences") */
		return (int)call->args[0] ? -ESRCH : answer_is_self(vessel, call->args[1]) ? 20 : -ESRCH;
	case SYS_ioprio_get:
		return answer_is_self(vessel, call->args[1]) ? 0 : -ESRCH;
	case SYS_uname:
		return user_store(vessel->pager, call->args[0], vessel->identity.uname, sizeof(vessel->identity.uname));
	case SYS_personality: /* 0xffffffff only asks */
		return (uint32_t)call->args[0] == 0xffffffffu || !call->args[0] ? 0 : refuse_note(vessel, call, EPERM);
	case SYS_getrlimit:
		return limit(vessel, (uint32_t)call->args[0], call->args[1]);
	case SYS_prlimit64:
		return prlimit_(vessel, call);
	case SYS_sched_getaffinity:
		return affinity(vessel, call);
	case SYS_sched_getparam:
	case SYS_sched_getscheduler:
	case SYS_sched_rr_get_interval:
	case SYS_sched_getattr:
		return about_scheduling(vessel, call);
	case SYS_getcpu:
		return getcpu_(vessel, call);
	case SYS_sysinfo:
		return machine(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
}
