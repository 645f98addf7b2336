/* answer_silent.c - recorded descriptors of which no more is known than that nothing comes from them: what is
 * polled, or read before anything was written to it.  A core does not tell whether one was non-blocking: it is
 * taken for that, as those are that event loops drain, until the program says otherwise. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"

static int64_t fcntl_(struct vessel *vessel, const struct system_call *call, int number)
{
	switch ((uint32_t)call->args[1]) {
	case F_GETFD:
		return fd_table_closes_on_exec(&vessel->kernel_state, number) ? FD_CLOEXEC : 0;
	case F_SETFD:
		fd_table_close_on_exec(&vessel->kernel_state, number, call->args[2] & FD_CLOEXEC);
		return 0;
	case F_GETFL:
		return O_RDWR | (fd_table_silent_waits(&vessel->kernel_state, number) ? 0 : O_NONBLOCK);
	case F_SETFL:
		fd_table_silent_wait(&vessel->kernel_state, number, !(call->args[2] & O_NONBLOCK));
		return 0;
	default:
		return ANSWER_NOT_MINE;
	}
}

static int64_t ioctl_(struct vessel *vessel, const struct system_call *call, int number)
{
	int value = 0;

	switch ((uint32_t)call->args[1]) {
	case FIONREAD:
		return user_store(vessel->pager, call->args[2], &value, sizeof(value));
	case FIONBIO:
		if (user_load(vessel->pager, call->args[2], &value, sizeof(value)) < 0)
			return -EFAULT;
		fd_table_silent_wait(&vessel->kernel_state, number, !value);
		return 0;
	default:
		return ANSWER_NOT_MINE;
	}
}

int64_t answer_silent(struct vessel *vessel, const struct system_call *call)
{
	int number = (int)call->args[0];

	if ((call->nr != SYS_fcntl && call->nr != SYS_ioctl && call->nr != SYS_close) || !channel_was_silent(vessel, number))
		return ANSWER_NOT_MINE;
	if (call->nr == SYS_fcntl)
		return fcntl_(vessel, call, number);
	if (call->nr == SYS_ioctl)
		return ioctl_(vessel, call, number);
	fd_table_tell_missing(&vessel->kernel_state, number);
	return 0;
}
