/* answer_epoll.c - epoll(7) over the program's own descriptors.  An epoll of the recorded process is taken for
 * an empty one: which descriptors it had is not recorded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "kernel/compat.h"
#include "process/clock.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"
#include "syscalls/waiting.h"

static struct opened *find(struct vessel *vessel, const struct system_call *call, int64_t *error)
{
	struct opened *file = channel_find(vessel, (int)call->args[0]);

	if (!file)
		file = channel_adopt(vessel, (int)call->args[0], OPENED_EPOLL);
	*error = !file ? refuse_descriptor(vessel, call, (int)call->args[0]) :
		 file->kind == OPENED_EPOLL ? 0 : -EINVAL;
	return *error ? NULL : file;
}

static int64_t control(struct vessel *vessel, const struct system_call *call)
{
	struct epoll_event event = {0};
	int64_t error;
	int number = (int)call->args[2];
	struct opened *file = find(vessel, call, &error);
	size_t i;

	if (!file)
		return error;
	if ((int)call->args[1] != EPOLL_CTL_DEL &&
	    user_load(vessel->pager, call->args[3], &event, sizeof(event)) < 0)
		return -EFAULT;
	struct opened *target = channel_find(vessel, number);
	if (target == file)
		return -EINVAL;
	if (target && (target->kind == OPENED_FILE || target->kind == OPENED_DIRECTORY))
		return -EPERM;
	struct epoll_entry entry = {.number = number, .events = event.events}, old;
	memcpy(&entry.data, &event.data, sizeof(entry.data));
	for (i = 0; i < channel_epoll_count(file); i++) {
		memcpy(&old, file->held->bytes + i * sizeof(old), sizeof(old));
		if (old.number == number)
			break;
	}
	bool there = i < channel_epoll_count(file);
	bool unknown = !target || (target->recorded && file->recorded); /* it may have had that one */
	switch ((int)call->args[1]) {
	case EPOLL_CTL_ADD:
		if (there)
			return -EEXIST;
		return fd_table_hold(file, &entry, sizeof(entry));
	case EPOLL_CTL_MOD:
		if (!there) /* one of those that are not recorded */
			return unknown ? fd_table_hold(file, &entry, sizeof(entry)) : -ENOENT;
		uint8_t *bytes = fd_table_held(file);
		if (!bytes)
			return -ENOMEM;
		memcpy(bytes + i * sizeof(entry), &entry, sizeof(entry));
		return 0;
	case EPOLL_CTL_DEL:
		if (!there)
			return unknown ? 0 : -ENOENT;
		return fd_table_take(file, i * sizeof(entry), sizeof(entry));
	default:
		return -EINVAL;
	}
}

static int64_t limit(struct vessel *vessel, const struct system_call *call, int64_t *ns)
{
	int timeout = (int)call->args[3];

	*ns = timeout < 0 ? FOR_EVER : (int64_t)timeout * 1000000;
	if (call->nr != SYS_epoll_pwait2)
		return 0;
	*ns = FOR_EVER;
	return call->args[3] ? clock_load_timespec(vessel, call->args[3], ns) : 0;
}

static int64_t wait_(struct vessel *vessel, const struct system_call *call)
{
	int64_t ns, error, most = (int)call->args[2], done = 0;
	struct opened *file = find(vessel, call, &error);

	if (!file)
		return error;
	if (most <= 0)
		return -EINVAL;
	error = limit(vessel, call, &ns);
again:
	for (size_t i = 0; error == 0 && done < most && i < channel_epoll_count(file); i++) {
		struct epoll_entry entry;
		memcpy(&entry, file->held->bytes + i * sizeof(entry), sizeof(entry));
		struct epoll_event event = {.events = channel_epoll_events(vessel, &entry)};
		if (!event.events)
			continue;
		memcpy(&event.data, &entry.data, sizeof(entry.data));
		if (user_store(vessel->pager, call->args[1] + (uint64_t)done * sizeof(event), &event, sizeof(event)) < 0)
			return done ? done : -EFAULT;
		entry.turns = fd_table_find(&vessel->kernel_state, entry.number)->turns;
		entry.told = 1;
		if (entry.events & EPOLLONESHOT)
			entry.events &= EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;
		uint8_t *bytes = fd_table_held(file);
		if (!bytes)
			return -ENOMEM;
		memcpy(bytes + i * sizeof(entry), &entry, sizeof(entry));
		done++;
	}
	if (error || done)
		return error ? error : done;
	if (!waiting_nothing_ready(vessel, call, &ns, 1, &done))
		goto again;
	return done;
}

int64_t answer_epoll(struct vessel *vessel, const struct system_call *call)
{
	uint32_t flags = call->nr == SYS_epoll_create1 ? (uint32_t)call->args[0] : 0;

	switch (call->nr) {
	case SYS_epoll_create:
		if ((int)call->args[0] <= 0)
			return -EINVAL;
		/* fall through */
	case SYS_epoll_create1: {
		if (flags & ~(uint32_t)EPOLL_CLOEXEC)
			return -EINVAL;
		struct opened *file = fd_table_open(&vessel->kernel_state, -1, OPENED_EPOLL, O_RDWR);
		int number = file ? fd_table_install(&vessel->kernel_state, &vessel->identity, file, 0, flags & EPOLL_CLOEXEC) : -EMFILE;
		if (file && number < 0)
			fd_table_release(&vessel->kernel_state, NULL, file);
		return number;
	}
	case SYS_epoll_ctl:
		return control(vessel, call);
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return wait_(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
}
