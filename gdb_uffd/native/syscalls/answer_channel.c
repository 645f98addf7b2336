/* answer_channel.c - pipe(2), socketpair(2), eventfd(2), signalfd(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"

static int64_t install(struct vessel *vessel, struct opened *file, bool close_on_exec)
{
	int number = file ? fd_table_install(&vessel->kernel_state, &vessel->identity, file, 0, close_on_exec) : -EMFILE;

	if (file && number < 0)
		fd_table_release(&vessel->kernel_state, NULL, file);
	return number;
}

/* pipe(2), socketpair(2): two descriptors, whose numbers go to `to`. */
static int64_t two(struct vessel *vessel, int kind, uint32_t flags, uint64_t to)
{
	struct opened *ends[2];
	int32_t numbers[2];

	if (!channel_open_two(vessel, kind, flags & O_NONBLOCK, ends))
		return -EMFILE;
	if (kind == OPENED_PIPE) {
		ends[0]->flags = (flags & O_NONBLOCK) | O_RDONLY;
		ends[1]->flags = (flags & O_NONBLOCK) | O_WRONLY;
	}
	numbers[0] = (int32_t)install(vessel, ends[0], flags & O_CLOEXEC);
	if (numbers[0] < 0) {
		fd_table_release(&vessel->kernel_state, NULL, ends[1]);
		return numbers[0];
	}
	numbers[1] = (int32_t)install(vessel, ends[1], flags & O_CLOEXEC);
	int rc = numbers[1] < 0 ? numbers[1] : user_store(vessel->pager, to, numbers, sizeof(numbers));
	if (rc < 0) {
		fd_table_drop(&vessel->kernel_state, NULL, numbers[0]);
		fd_table_drop(&vessel->kernel_state, NULL, numbers[1]);
	}
	return rc;
}

static int64_t event(struct vessel *vessel, uint32_t count, uint32_t flags)
{
	struct opened *file;

	if (flags & ~(uint32_t)(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE))
		return -EINVAL;
	file = fd_table_open(&vessel->kernel_state, -1, OPENED_EVENT, O_RDWR | (flags & O_NONBLOCK));
	if (file) {
		file->offset = count;
		file->semaphore = flags & EFD_SEMAPHORE;
	}
	return install(vessel, file, flags & EFD_CLOEXEC);
}

static int64_t signalfd_(struct vessel *vessel, const struct system_call *call, uint32_t flags)
{
	struct opened *file = fd_table_find(&vessel->kernel_state, (int)call->args[0]);
	uint64_t set;

	if ((flags & ~(uint32_t)(SFD_CLOEXEC | SFD_NONBLOCK)) || call->args[2] != sizeof(set))
		return -EINVAL;
	if (user_load(vessel->pager, call->args[1], &set, sizeof(set)) < 0)
		return -EFAULT;
	set &= ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
	if ((int)call->args[0] == -1) {
		file = fd_table_open(&vessel->kernel_state, -1, OPENED_SIGNALS, O_RDWR | (flags & O_NONBLOCK));
		if (file)
			file->offset = (int64_t)set;
		return install(vessel, file, flags & SFD_CLOEXEC);
	}
	if (!file)
		return refuse_descriptor(vessel, call, (int)call->args[0]);
	if (file->kind != OPENED_SIGNALS)
		return -EINVAL;
	file->offset = (int64_t)set;
	return (int)call->args[0];
}

static int64_t socketpair_(struct vessel *vessel, const struct system_call *call)
{
	uint32_t type = (uint32_t)call->args[1];

	/* Others keep messages apart, or reach outside. */
	if (call->args[0] != AF_UNIX || (type & ~(uint32_t)(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_STREAM)
		return refuse_note(vessel, call, EMFILE);
	return two(vessel, OPENED_PAIR, type & (SOCK_CLOEXEC | SOCK_NONBLOCK), call->args[3]);
}

int64_t answer_channel(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_pipe:
		return two(vessel, OPENED_PIPE, 0, call->args[0]);
	case SYS_pipe2:
		if (call->args[1] & ~(uint64_t)(O_CLOEXEC | O_NONBLOCK))
			return call->args[1] & O_DIRECT ? refuse_note(vessel, call, EINVAL) : -EINVAL;
		return two(vessel, OPENED_PIPE, (uint32_t)call->args[1], call->args[0]);
	case SYS_socketpair:
		return socketpair_(vessel, call);
	case SYS_eventfd:
		return event(vessel, (uint32_t)call->args[0], 0);
	case SYS_eventfd2:
		return event(vessel, (uint32_t)call->args[0], (uint32_t)call->args[1]);
	case SYS_signalfd:
		return signalfd_(vessel, call, 0);
	case SYS_signalfd4:
		return signalfd_(vessel, call, (uint32_t)call->args[3]);
	default:
		return ANSWER_NOT_MINE;
	}
}
