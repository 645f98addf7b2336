/* answer_identity.c - who the program was, and what machine it was on, as far as the record tells. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "process/user.h"
#include "process/vessel.h"
#include "syscalls/answer.h"
#include "syscalls/refuse.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#define STACK_LIMIT (8ul << 20)
#define RESIDENT_MAX (16ul << 20) /* pages that one mincore(2) tells of: 64 GiB */

static bool is_self(const struct vessel *vessel, uint64_t who)
{
	int pid = (int)who;

	return pid == 0 || pid == vessel->record.pid || pid == vessel->record.tid;
}

static int64_t store_three(struct vessel *vessel, const struct system_call *call, uint32_t real,
			   uint32_t effective)
{
	uint32_t values[3] = {real, effective, effective};

	for (int i = 0; i < 3; i++)
		if (user_store(vessel->pager, call->args[i], &values[i], sizeof(values[i])) < 0)
			return -EFAULT;
	return 0;
}

static int64_t limits(struct vessel *vessel, uint64_t which, uint64_t address)
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
	if (!is_self(vessel, call->args[0]) || call->args[2])
		return refuse_note(vessel, call, EPERM);
	return limits(vessel, (uint32_t)call->args[1], call->args[3]);
}

static int64_t affinity(struct vessel *vessel, const struct system_call *call)
{
	uint64_t one = 1; /* it has one CPU, number 0 */

	if (!is_self(vessel, call->args[0]))
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
	info.uptime = vessel->record.monotonic_ns / 1000000000;
	return user_store(vessel->pager, call->args[0], &info, sizeof(info));
}

static int64_t prctl_(struct vessel *vessel, const struct system_call *call)
{
	char *name = vessel->kernel_state.name;

	switch ((int)call->args[0]) {
	case PR_GET_NAME:
		return user_store(vessel->pager, call->args[1], name, sizeof(vessel->kernel_state.name));
	case PR_SET_NAME: {
		char wanted[16] = {0};
		int rc = user_load_string(vessel->pager, call->args[1], wanted, sizeof(wanted));
		if (rc == -EFAULT)
			return rc;
		wanted[15] = 0;
		memcpy(name, wanted, sizeof(wanted));
		return 0;
	}
	case PR_GET_DUMPABLE:
	case PR_GET_TIMERSLACK:
		return 1;
	case PR_GET_SECCOMP:
	case PR_GET_NO_NEW_PRIVS:
	case PR_GET_KEEPCAPS:
	case PR_CAPBSET_READ:
	case PR_GET_SECUREBITS:
	case PR_SET_VMA: /* names of anonymous memory: nobody reads them */
		return 0;
	case PR_GET_PDEATHSIG: {
		int none = 0;
		return user_store(vessel->pager, call->args[1], &none, sizeof(none));
	}
	default:
		return refuse_note(vessel, call, EPERM);
	}
}

static int64_t capget_(struct vessel *vessel, const struct system_call *call)
{
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct none[2] = {{0}};

	if (user_load(vessel->pager, call->args[0], &head, sizeof(head)) < 0)
		return -EFAULT;
	bool known = head.version == _LINUX_CAPABILITY_VERSION_1 ||
		     head.version == _LINUX_CAPABILITY_VERSION_2 ||
		     head.version == _LINUX_CAPABILITY_VERSION_3;
	if (!known) {
		head.version = _LINUX_CAPABILITY_VERSION_3;
		int64_t rc = user_store(vessel->pager, call->args[0], &head, sizeof(head));
		return rc < 0 ? rc : call->args[1] ? -EINVAL : 0;
	}
	if (!is_self(vessel, (uint64_t)head.pid))
		return -ESRCH;
	size_t len = head.version == _LINUX_CAPABILITY_VERSION_1 ? sizeof(none[0]) : sizeof(none);
	return call->args[1] ? user_store(vessel->pager, call->args[1], none, len) : 0;
}

/* All mapped pages count as resident: what is not fed yet is no business of the program's. */
static int64_t mincore_(struct vessel *vessel, const struct system_call *call)
{
	uint64_t at = call->args[0], pages = (call->args[1] + PAGE_BYTES - 1) / PAGE_BYTES, to = call->args[2];
	uint8_t resident[PAGE_BYTES];

	memset(resident, 1, sizeof(resident));
	if (at % PAGE_BYTES)
		return -EINVAL;
	if (pages > RESIDENT_MAX)
		return -EAGAIN; /* "the kernel is temporarily out of resources" (mincore(2)) */
	while (pages) {
		const struct region *region = regions_find(&vessel->pager->regions, at);
		uint64_t part = pages < sizeof(resident) ? pages : sizeof(resident);
		if (!region)
			return -ENOMEM;
		if (part > (region->end - at) / PAGE_BYTES)
			part = (region->end - at) / PAGE_BYTES;
		if (user_store(vessel->pager, to, resident, part) < 0)
			return -EFAULT;
		at += part * PAGE_BYTES;
		to += part;
		pages -= part;
	}
	return 0;
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

	if (!is_self(vessel, call->args[0]))
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

int64_t answer_identity(struct vessel *vessel, const struct system_call *call)
{
	const struct identity *record = &vessel->record;

	switch (call->nr) {
	case SYS_getpid:
		return record->pid;
	case SYS_gettid:
	case SYS_set_tid_address:
		return record->tid;
	case SYS_getppid:
		return record->ppid;
	case SYS_getuid:
		return record->uid;
	case SYS_geteuid:
		return record->euid;
	case SYS_getgid:
		return record->gid;
	case SYS_getegid:
		return record->egid;
	case SYS_getresuid:
		return store_three(vessel, call, record->uid, record->euid);
	case SYS_getresgid:
		return store_three(vessel, call, record->gid, record->egid);
	case SYS_getgroups: /* supplementary groups are not recorded */
		return 0;
	case SYS_getpgrp:
		return record->pgrp;
	case SYS_getpgid:
		return is_self(vessel, call->args[0]) ? record->pgrp : -ESRCH;
	case SYS_getsid:
		return is_self(vessel, call->args[0]) ? record->sid : -ESRCH;
	case SYS_getpriority: /* 20 - nice (getpriority(2), "C library/kernel differences") */
		return (int)call->args[0] ? -ESRCH : is_self(vessel, call->args[1]) ? 20 : -ESRCH;
	case SYS_ioprio_get:
		return is_self(vessel, call->args[1]) ? 0 : -ESRCH;
	case SYS_uname:
		return user_store(vessel->pager, call->args[0], record->uname, sizeof(record->uname));
	case SYS_umask: {
		uint32_t before = vessel->kernel_state.umask;
		vessel->kernel_state.umask = (uint32_t)call->args[0] & 0777;
		return before;
	}
	case SYS_personality: /* 0xffffffff only asks */
		return (uint32_t)call->args[0] == 0xffffffffu || !call->args[0] ?
			       0 :
			       refuse_note(vessel, call, EPERM);
	case SYS_getrlimit:
		return limits(vessel, (uint32_t)call->args[0], call->args[1]);
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
	case SYS_getrandom: /* no record knows it: the report is to tell of it */
		return ANSWER_LET;
	case SYS_prctl:
		return prctl_(vessel, call);
	case SYS_capget:
		return capget_(vessel, call);
	case SYS_mincore:
		return mincore_(vessel, call);
	case SYS_msync: { /* private memory has nothing to write back */
		uint64_t end = call->args[0] + call->args[1];
		for (uint64_t at = call->args[0]; at < end;) {
			const struct region *region = regions_find(&vessel->pager->regions, at);
			if (!region)
				return -ENOMEM;
			at = region->end;
		}
		return call->args[0] % PAGE_BYTES ? -EINVAL : 0;
	}
	case SYS_wait4:
	case SYS_waitid: /* it has no children: fork is refused, and recorded ones are not there */
		return -ECHILD;
	default:
		return ANSWER_NOT_MINE;
	}
}
