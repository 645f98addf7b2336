/* answer_epoll.c - epoll(7) over the program's own descriptors.  An epoll of the recorded process is taken for
 * an empty one: which descriptors it had is not recorded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "answer.h"
#include "compat.h"
#include "user_memory.h"
#include "vessel.h"

#define DEPTH_MAX 5 /* EP_MAX_NESTS */

struct entry {
	int32_t number; /* the descriptor */
	uint32_t events, turns; /* `turns`: of the file, when it was last told of (EPOLLET) */
	uint32_t told;
	uint64_t data;
};

static size_t count_of(const struct opened *file)
{
	return file->held ? file->held->len / sizeof(struct entry) : 0;
}

/* EPOLLIN and its like have poll(2)'s values (<sys/epoll.h>). */
static uint32_t ready(struct vessel *vessel, const struct entry *entry)
{
	struct opened *file = channel_find(vessel, entry->number);
	uint32_t events = entry->events & (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP);

	if (!file || entry->events == events) /* one-shot, and told */
		return 0;
	if ((entry->events & EPOLLET) && entry->told && entry->turns == file->turns)
		return 0;
	return (uint32_t)(uint16_t)channel_ready(vessel, file) & (entry->events | EPOLLERR | EPOLLHUP) & 0xffff;
}

bool epoll_is_ready(struct vessel *vessel, struct opened *file)
{
	bool found = false;

	if (vessel->epoll_depth >= DEPTH_MAX)
		return false;
	vessel->epoll_depth++;
	for (size_t i = 0; !found && i < count_of(file); i++) {
		struct entry entry;
		memcpy(&entry, file->held->bytes + i * sizeof(entry), sizeof(entry));
		found = ready(vessel, &entry);
	}
	vessel->epoll_depth--;
	return found;
}

static struct opened *find(struct vessel *vessel, const struct system_call *call, int64_t *error)
{
	struct opened *file = channel_find(vessel, (int)call->args[0]);

	if (!file)
		file = channel_adopt(vessel, (int)call->args[0], OPENED_EPOLL);
	*error = !file ? answer_bad_descriptor(vessel, call, (int)call->args[0]) :
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
	struct entry entry = {.number = number, .events = event.events}, old;
	memcpy(&entry.data, &event.data, sizeof(entry.data));
	for (i = 0; i < count_of(file); i++) {
		memcpy(&old, file->held->bytes + i * sizeof(old), sizeof(old));
		if (old.number == number)
			break;
	}
	bool there = i < count_of(file);
	bool unknown = !target || (target->recorded && file->recorded); /* it may have had that one */
	switch ((int)call->args[1]) {
	case EPOLL_CTL_ADD:
		if (there)
			return -EEXIST;
		return desk_hold(file, &entry, sizeof(entry));
	case EPOLL_CTL_MOD:
		if (!there) /* one of those that are not recorded */
			return unknown ? desk_hold(file, &entry, sizeof(entry)) : -ENOENT;
		uint8_t *bytes = desk_held(file);
		if (!bytes)
			return -ENOMEM;
		memcpy(bytes + i * sizeof(entry), &entry, sizeof(entry));
		return 0;
	case EPOLL_CTL_DEL:
		if (!there)
			return unknown ? 0 : -ENOENT;
		return desk_take(file, i * sizeof(entry), sizeof(entry));
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
	return call->args[3] ? answer_load_timespec(vessel, call->args[3], ns) : 0;
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
	for (size_t i = 0; error == 0 && done < most && i < count_of(file); i++) {
		struct entry entry;
		memcpy(&entry, file->held->bytes + i * sizeof(entry), sizeof(entry));
		struct epoll_event event = {.events = ready(vessel, &entry)};
		if (!event.events)
			continue;
		memcpy(&event.data, &entry.data, sizeof(entry.data));
		if (user_store(vessel->pager, call->args[1] + (uint64_t)done * sizeof(event), &event, sizeof(event)) < 0)
			return done ? done : -EFAULT;
		entry.turns = desk_find(&vessel->desk, entry.number)->turns;
		entry.told = 1;
		if (entry.events & EPOLLONESHOT)
			entry.events &= EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;
		uint8_t *bytes = desk_held(file);
		if (!bytes)
			return -ENOMEM;
		memcpy(bytes + i * sizeof(entry), &entry, sizeof(entry));
		done++;
	}
	if (error || done)
		return error ? error : done;
	if (!answer_nothing_ready(vessel, call, &ns, 1, &done))
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
		struct opened *file = desk_open(&vessel->desk, -1, OPENED_EPOLL, O_RDWR);
		int number = file ? desk_install(&vessel->desk, &vessel->record, file, 0, flags & EPOLL_CLOEXEC) : -EMFILE;
		if (file && number < 0)
			desk_release(&vessel->desk, NULL, file);
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
