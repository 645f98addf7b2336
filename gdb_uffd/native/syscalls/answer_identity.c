/* answer_identity.c - who the program was, as far as the recording tells. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/refuse.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static int64_t store_three(struct vessel *vessel, const struct system_call *call, uint32_t real,
			   uint32_t effective)
{
	uint32_t values[3] = {real, effective, effective};

	for (int i = 0; i < 3; i++)
		if (user_store(vessel->pager, call->args[i], &values[i], sizeof(values[i])) < 0)
			return -EFAULT;
	return 0;
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
	if (!answer_is_self(vessel, (uint64_t)head.pid))
		return -ESRCH;
	size_t len = head.version == _LINUX_CAPABILITY_VERSION_1 ? sizeof(none[0]) : sizeof(none);
	return call->args[1] ? user_store(vessel->pager, call->args[1], none, len) : 0;
}

int64_t answer_identity(struct vessel *vessel, const struct system_call *call)
{
	const struct identity *identity = &vessel->identity;
	uint32_t before = vessel->kernel_state.umask;

	switch (call->nr) {
	case SYS_getpid:
		return identity->pid;
	case SYS_gettid:
	case SYS_set_tid_address:
		return identity->tid;
	case SYS_getppid:
		return identity->ppid;
	case SYS_getuid:
		return identity->uid;
	case SYS_geteuid:
		return identity->euid;
	case SYS_getgid:
		return identity->gid;
	case SYS_getegid:
		return identity->egid;
	case SYS_getresuid:
		return store_three(vessel, call, identity->uid, identity->euid);
	case SYS_getresgid:
		return store_three(vessel, call, identity->gid, identity->egid);
	case SYS_getgroups: /* supplementary groups are not recorded */
		return 0;
	case SYS_getpgrp:
		return identity->pgrp;
	case SYS_getpgid:
		return answer_is_self(vessel, call->args[0]) ? identity->pgrp : -ESRCH;
	case SYS_getsid:
		return answer_is_self(vessel, call->args[0]) ? identity->sid : -ESRCH;
	case SYS_umask:
		vessel->kernel_state.umask = (uint32_t)call->args[0] & 0777;
		return before;
	case SYS_prctl:
		return prctl_(vessel, call);
	case SYS_capget:
		return capget_(vessel, call);
	case SYS_wait4:
	case SYS_waitid: /* it has no children: fork is refused, and recorded ones are not there */
		return -ECHILD;
	default:
		return ANSWER_NOT_MINE;
	}
}
