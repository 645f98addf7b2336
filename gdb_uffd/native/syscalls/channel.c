/* channel.c - descriptors between the program and itself: pipes, socket pairs, eventfds, signalfds.  They
 * lie in the server, so nothing leaves the vessel.
 *
 * A core does not tell what the recorded descriptors were.  An event loop wakes itself by eight bytes that
 * are a small number (an eventfd), or by a single byte (a pipe, a socket pair): a descriptor that is used
 * so is taken for it, and the report says so; where the recording knows better, that holds. */
#define _GNU_SOURCE
#include "syscalls/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process/clock.h"
#include "process/timers.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/pending.h"
#include "syscalls/waiting.h"

#define PIPE_BYTES 65536ul /* pipe(7), "Pipe capacity" */
#define PART 4096
#define DEPTH_MAX 5 /* EP_MAX_NESTS */
#define EVENT_MAX (UINT64_MAX - 1) /* eventfd(2) */

static struct opened *peer_of(struct vessel *vessel, const struct opened *file)
{
	return file->peer ? &vessel->kernel_state.files[file->peer - 1] : NULL;
}

/* Two files that are each other's other end; false: too many are open. */
bool channel_open_two(struct vessel *vessel, int kind, uint32_t flags, struct opened *ends[2])
{
	struct kernel_state *state = &vessel->kernel_state;

	for (int i = 0; i < 2; i++) {
		ends[i] = fd_table_open(state, -1, kind, flags | O_RDWR);
		if (!ends[i] && i)
			fd_table_release(state, NULL, ends[0]);
		if (!ends[i])
			return false;
	}
	ends[0]->peer = (int16_t)(ends[1] - state->files + 1);
	ends[1]->peer = (int16_t)(ends[0] - state->files + 1);
	return true;
}

/* The recorded descriptor is that file, and waits as it was told to. */
static void place(struct vessel *vessel, int number, struct opened *file)
{
	file->flags = O_RDWR | (fd_table_silent_waits(&vessel->kernel_state, number) ? 0 : O_NONBLOCK);
	file->recorded = true;
	vessel->kernel_state.table[number] = (int16_t)(file - vessel->kernel_state.files);
	file->nowhere = false;
}

struct opened *channel_find(struct vessel *vessel, int number)
{
	struct kernel_state *state = &vessel->kernel_state;
	struct opened *file = fd_table_find(state, number);

	/* pipe(2) and socketpair(2) give neighbouring numbers. */
	for (int beside = -1; !file && number > 2 && beside < 2; beside += 2) {
		struct opened *other = fd_table_find(state, number - beside);
		struct opened *peer = other ? peer_of(vessel, other) : NULL;
		if (!peer || !peer->nowhere || !fd_table_may_be(state, &vessel->identity, number))
			continue;
		place(vessel, number, peer);
		file = peer;
	}
	return file;
}

static bool may_be(const struct vessel *vessel, int number, int kind)
{
	const struct identity *identity = &vessel->identity;

	if (!fd_table_may_be(&vessel->kernel_state, identity, number))
		return false;
	return !identity->descriptors_told || identity->descriptor_kind[number] == kind;
}

static void tell(struct vessel *vessel, int number, int kind)
{
	for (uint32_t i = 0; i < vessel->adopted_count; i++)
		if (vessel->adopted[i].number == number && vessel->adopted[i].kind == kind)
			return;
	if (vessel->adopted_count < ADOPTED_MAX)
		vessel->adopted[vessel->adopted_count++] = (struct adopted){number, kind};
}

bool channel_is_silent(struct vessel *vessel, int number)
{
	if (!fd_table_may_be(&vessel->kernel_state, &vessel->identity, number))
		return false;
	fd_table_take_for_silent(&vessel->kernel_state, number);
	tell(vessel, number, OPENED_NOTHING);
	return true;
}

struct opened *channel_adopt(struct vessel *vessel, int number, int kind)
{
	struct opened *ends[2] = {NULL, NULL};

	if (!may_be(vessel, number, kind))
		return NULL;
	if (kind != OPENED_PIPE && kind != OPENED_PAIR) {
		ends[0] = fd_table_open(&vessel->kernel_state, -1, kind, 0);
		if (!ends[0])
			return NULL;
	} else {
		if (!channel_open_two(vessel, kind, 0, ends))
			return NULL;
		int other = vessel->identity.descriptors_told ? vessel->identity.descriptor_peer[number] : -1;
		ends[1]->nowhere = true;
		if (fd_table_may_be(&vessel->kernel_state, &vessel->identity, other))
			place(vessel, other, ends[1]);
	}
	place(vessel, number, ends[0]);
	tell(vessel, number, kind);
	return ends[0];
}

size_t channel_epoll_count(const struct opened *file)
{
	return file->held ? file->held->len / sizeof(struct epoll_entry) : 0;
}

/* EPOLLIN and its like have poll(2)'s values (<sys/epoll.h>). */
uint32_t channel_epoll_events(struct vessel *vessel, const struct epoll_entry *entry)
{
	struct opened *file = channel_find(vessel, entry->number);
	uint32_t events = entry->events & (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP);

	if (!file || entry->events == events) /* one-shot, and told */
		return 0;
	if ((entry->events & EPOLLET) && entry->told && entry->turns == file->turns)
		return 0;
	return (uint32_t)(uint16_t)channel_ready(vessel, file) & (entry->events | EPOLLERR | EPOLLHUP) & 0xffff;
}

static bool is_epoll_ready(struct vessel *vessel, struct opened *file)
{
	bool found = false;

	if (vessel->epoll_depth >= DEPTH_MAX)
		return false;
	vessel->epoll_depth++;
	for (size_t i = 0; !found && i < channel_epoll_count(file); i++) {
		struct epoll_entry entry;
		memcpy(&entry, file->held->bytes + i * sizeof(entry), sizeof(entry));
		found = channel_epoll_events(vessel, &entry);
	}
	vessel->epoll_depth--;
	return found;
}

static short pipe_ready(struct vessel *vessel, const struct opened *file)
{
	const struct opened *peer = peer_of(vessel, file);
	bool full = peer && peer->held && peer->held->len >= PIPE_BYTES;
	short in = file->held && file->held->len ? POLLIN | POLLRDNORM : 0;

	if (file->kind == OPENED_PAIR && !peer)
		return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLRDHUP;
	if (file->kind == OPENED_PIPE && (file->flags & O_ACCMODE) == O_RDONLY)
		return (short)(in | (peer ? 0 : POLLHUP));
	if (!peer)
		return POLLOUT | POLLWRNORM | POLLERR;
	return (short)(in | (full ? 0 : POLLOUT | POLLWRNORM));
}

short channel_ready(struct vessel *vessel, struct opened *file)
{
	struct signal_sets sets;

	if (!file)
		return POLLNVAL;
	switch (file->kind) {
	case OPENED_OUTPUT:
		return POLLOUT | POLLWRNORM;
	case OPENED_INPUT:
		return POLLIN | POLLRDNORM;
	case OPENED_SOCKET:
		return POLLOUT | POLLHUP;
	case OPENED_PATH:
		return POLLNVAL;
	case OPENED_PIPE:
	case OPENED_PAIR:
		return pipe_ready(vessel, file);
	case OPENED_EVENT:
		return (short)((file->offset ? POLLIN | POLLRDNORM : 0) |
			       ((uint64_t)file->offset < EVENT_MAX ? POLLOUT | POLLWRNORM : 0));
	case OPENED_SIGNALS:
		signals_read(vessel, &sets);
		return sets.pending & (uint64_t)file->offset ? POLLIN | POLLRDNORM : 0;
	case OPENED_TIMER:
		return vessel->kernel_state.timers[file->offset].ticks ? POLLIN | POLLRDNORM : 0;
	case OPENED_EPOLL:
		return is_epoll_ready(vessel, file) ? POLLIN | POLLRDNORM : 0;
	default:
		return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	}
}

int64_t channel_later(struct vessel *vessel, const struct system_call *call, bool at_once)
{
	if (!at_once)
		return waiting_for_ever(vessel, call, 0);
	vessel->felt_calls--; /* nothing has changed: who asks again and again goes in a circle */
	return -EAGAIN;
}

static int64_t later(struct vessel *vessel, const struct system_call *call, const struct opened *file)
{
	return channel_later(vessel, call, file->flags & O_NONBLOCK);
}

static int64_t read_event(struct vessel *vessel, const struct system_call *call, struct opened *file,
			  uint64_t at, uint64_t len)
{
	uint64_t value = file->semaphore ? 1 : (uint64_t)file->offset;

	if (len < sizeof(value))
		return -EINVAL;
	if (!file->offset)
		return later(vessel, call, file);
	if (user_store(vessel->pager, at, &value, sizeof(value)) < 0)
		return -EFAULT;
	file->offset -= (int64_t)value;
	return sizeof(value);
}

static int64_t write_event(struct vessel *vessel, const struct system_call *call, struct opened *file,
			   uint64_t at, uint64_t len)
{
	uint64_t value;

	if (len < sizeof(value))
		return -EINVAL;
	if (user_load(vessel->pager, at, &value, sizeof(value)) < 0)
		return -EFAULT;
	if (value == UINT64_MAX)
		return -EINVAL;
	if (value > EVENT_MAX - (uint64_t)file->offset)
		return later(vessel, call, file);
	file->offset += (int64_t)value;
	file->turns++;
	return sizeof(value);
}

static int64_t read_signals(struct vessel *vessel, const struct system_call *call, struct opened *file,
			    uint64_t at, uint64_t len)
{
	struct system_call into = *call;

	if (len < sizeof(struct signalfd_siginfo))
		return -EINVAL;
	if (!(channel_ready(vessel, file) & POLLIN))
		return later(vessel, call, file);
	into.args[1] = at;
	return pending_take_record(vessel, &into, (uint64_t)file->offset);
}

static int64_t read_timer(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at, uint64_t len)
{
	struct timer *timer = &vessel->kernel_state.timers[file->offset];
	int64_t ns = FOR_EVER;

	if (len < sizeof(timer->ticks))
		return -EINVAL;
	while (!timer->ticks) {
		if (file->flags & O_NONBLOCK)
			return -EAGAIN;
		int how = timers_pass(vessel, &ns, true);
		if (how == PASSED_INTERRUPTED)
			return waiting_interrupted(vessel, call, 0);
		if (how != PASSED_TICKED)
			return waiting_for_ever(vessel, call, 0);
	}
	if (user_store(vessel->pager, at, &timer->ticks, sizeof(timer->ticks)) < 0)
		return -EFAULT;
	timer->ticks = 0;
	return sizeof(timer->ticks);
}

static int64_t read_bytes(struct vessel *vessel, const struct system_call *call, struct opened *file,
			  uint64_t at, uint64_t len)
{
	if (!len)
		return 0;
	if (!file->held || !file->held->len)
		return file->peer ? later(vessel, call, file) : 0;
	if (len > file->held->len)
		len = file->held->len;
	if (user_store(vessel->pager, at, file->held->bytes, len) < 0)
		return -EFAULT;
	int rc = fd_table_take(file, 0, len);
	return rc < 0 ? rc : (int64_t)len;
}

static int64_t write_bytes(struct vessel *vessel, const struct system_call *call, struct opened *file,
			   uint64_t at, uint64_t len)
{
	struct opened *peer = peer_of(vessel, file);
	uint8_t bytes[PART];
	uint64_t done = 0;

	if (!peer) {
		siginfo_t info = {.si_signo = SIGPIPE, .si_code = SI_USER};
		info.si_pid = vessel->identity.pid;
		info.si_uid = vessel->identity.uid;
		if (!(call->nr == SYS_sendto && (call->args[3] & MSG_NOSIGNAL)))
			signals_send(vessel, &info);
		return -EPIPE;
	}
	uint64_t room = peer->held ? PIPE_BYTES - peer->held->len : PIPE_BYTES;
	if (len && !room)
		return later(vessel, call, file);
	if (len > room)
		len = room;
	while (done < len) {
		uint64_t part = len - done < PART ? len - done : PART;
		if (user_load(vessel->pager, at + done, bytes, part) < 0)
			return done ? (int64_t)done : -EFAULT;
		int rc = fd_table_hold(peer, bytes, part);
		if (rc < 0)
			return done ? (int64_t)done : rc;
		done += part;
	}
	return (int64_t)done;
}

int64_t channel_read(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		     uint64_t len)
{
	if ((file->flags & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	if (file->kind == OPENED_EVENT)
		return read_event(vessel, call, file, at, len);
	if (file->kind == OPENED_SIGNALS)
		return read_signals(vessel, call, file, at, len);
	if (file->kind == OPENED_TIMER)
		return read_timer(vessel, call, file, at, len);
	return file->kind == OPENED_EPOLL ? -EINVAL : read_bytes(vessel, call, file, at, len);
}

int64_t channel_write(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		      uint64_t len)
{
	if ((file->flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	if (file->kind == OPENED_EVENT)
		return write_event(vessel, call, file, at, len);
	if (file->kind == OPENED_SIGNALS || file->kind == OPENED_EPOLL || file->kind == OPENED_TIMER)
		return -EINVAL;
	return write_bytes(vessel, call, file, at, len);
}

/* Whether the program was told so before. */
bool channel_was_silent(struct vessel *vessel, int number)
{
	return fd_table_may_be(&vessel->kernel_state, &vessel->identity, number) && fd_table_is_silent(&vessel->kernel_state, number);
}

int64_t channel_read_silent(struct vessel *vessel, const struct system_call *call)
{
	const struct identity *identity = &vessel->identity;
	int number = (int)call->args[0];

	/* Where the recording knows that it led elsewhere, there was something to be read, or may have been. */
	if (!channel_was_silent(vessel, number) && identity->descriptors_told &&
	    (number < 0 || number >= DESCRIPTORS_MAX || !identity->descriptor_kind[number]))
		return ANSWER_NOT_MINE;
	if (!channel_is_silent(vessel, number))
		return ANSWER_NOT_MINE;
	return channel_later(vessel, call, !fd_table_silent_waits(&vessel->kernel_state, number));
}
