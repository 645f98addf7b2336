/* pending.c - a pending signal is taken from the kernel, and what it tells is mended. */
#define _GNU_SOURCE
#include "syscalls/pending.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"

static int64_t taken(struct vessel *vessel, const struct system_call *call, int64_t result)
{
	siginfo_t info;

	if (result > 0 && user_load(vessel->pager, call->args[1], &info, sizeof(info)) == 0 &&
	    signals_mend(vessel, &info))
		user_store(vessel->pager, call->args[1], &info, sizeof(info));
	return result;
}

int64_t pending_take(struct vessel *vessel, const struct system_call *call)
{
	if (!call->args[1])
		return ANSWER_LET; /* nobody looks at it */
	vessel->redo = (struct redo){.call = *call, .finish = taken};
	return ANSWER_REDO;
}

/* signalfd(2): what read(2) returns. */
static int64_t taken_record(struct vessel *vessel, const struct system_call *call, int64_t result)
{
	struct signalfd_siginfo record = {0};
	siginfo_t info;

	if (result <= 0)
		return result;
	if (user_load(vessel->pager, call->args[1], &info, sizeof(info)) < 0)
		return -EFAULT;
	signals_mend(vessel, &info);
	record.ssi_signo = (uint32_t)info.si_signo;
	record.ssi_errno = info.si_errno;
	record.ssi_code = info.si_code;
	if (info.si_code == SI_TIMER) {
		record.ssi_tid = (uint32_t)info.si_timerid;
		record.ssi_overrun = (uint32_t)info.si_overrun;
	} else {
		record.ssi_pid = (uint32_t)info.si_pid;
		record.ssi_uid = info.si_uid;
	}
	if (info.si_code < 0) {
		record.ssi_int = info.si_int;
		record.ssi_ptr = (uint64_t)info.si_ptr;
	}
	int rc = user_store(vessel->pager, call->args[1], &record, sizeof(record));
	return rc < 0 ? rc : (int64_t)sizeof(record);
}

int64_t pending_take_record(struct vessel *vessel, const struct system_call *call, uint64_t set)
{
	uint8_t room[sizeof(struct signalfd_siginfo)] = {0};
	uint64_t at = call->args[1];

	_Static_assert(sizeof(siginfo_t) == sizeof(room), "one lies where the other goes");
	memcpy(room, &set, sizeof(set));
	if (user_store(vessel->pager, at, room, sizeof(room)) < 0)
		return -EFAULT;
	/* The kernel reads the set before it writes over it. */
	vessel->redo = (struct redo){
		.call = {.nr = SYS_rt_sigtimedwait, .args = {at, at, 0, sizeof(set)}},
		.finish = taken_record,
	};
	return ANSWER_REDO;
}
