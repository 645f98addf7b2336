/* answer_silent.c - recorded descriptors of which no more is known than that nothing comes from them: what is
 * polled, or read before anything was written to it.  A core does not tell whether one was non-blocking: it is
 * taken for that, as those are that event loops drain, until the program says otherwise. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "answer.h"
#include "user_memory.h"
#include "vessel.h"

/* Whether the program was told so before. */
static bool was_silent(struct vessel *vessel, int number)
{
	return desk_may_be(&vessel->desk, &vessel->record, number) && desk_is_silent(&vessel->desk, number);
}

int64_t silent_read(struct vessel *vessel, const struct system_call *call)
{
	const struct identity *record = &vessel->record;
	int number = (int)call->args[0];

	/* Where the recording knows that it led elsewhere, there was something to be read, or may have been. */
	if (!was_silent(vessel, number) && record->descriptors_told &&
	    (number < 0 || number >= DESCRIPTORS_MAX || !record->descriptor_kind[number]))
		return ANSWER_NOT_MINE;
	if (!channel_is_silent(vessel, number))
		return ANSWER_NOT_MINE;
	return channel_later(vessel, call, !desk_silent_waits(&vessel->desk, number));
}

static int64_t fcntl_(struct vessel *vessel, const struct system_call *call, int number)
{
	switch ((uint32_t)call->args[1]) {
	case F_GETFD:
		return desk_closes_on_exec(&vessel->desk, number) ? FD_CLOEXEC : 0;
	case F_SETFD:
		desk_close_on_exec(&vessel->desk, number, call->args[2] & FD_CLOEXEC);
		return 0;
	case F_GETFL:
		return O_RDWR | (desk_silent_waits(&vessel->desk, number) ? 0 : O_NONBLOCK);
	case F_SETFL:
		desk_silent_wait(&vessel->desk, number, !(call->args[2] & O_NONBLOCK));
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
		desk_silent_wait(&vessel->desk, number, !value);
		return 0;
	default:
		return ANSWER_NOT_MINE;
	}
}

int64_t answer_silent(struct vessel *vessel, const struct system_call *call)
{
	int number = (int)call->args[0];

	if ((call->nr != SYS_fcntl && call->nr != SYS_ioctl && call->nr != SYS_close) || !was_silent(vessel, number))
		return ANSWER_NOT_MINE;
	if (call->nr == SYS_fcntl)
		return fcntl_(vessel, call, number);
	if (call->nr == SYS_ioctl)
		return ioctl_(vessel, call, number);
	desk_tell_missing(&vessel->desk, number);
	return 0;
}
