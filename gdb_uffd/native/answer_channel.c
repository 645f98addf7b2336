/* answer_channel.c - descriptors between the program and itself: pipes, socket pairs, eventfds, signalfds.  They
 * lie in the server, so nothing leaves the vessel.
 *
 * A core does not tell what the recorded descriptors were.  An event loop wakes itself by eight bytes that
 * are a small number (an eventfd), or by a single byte (a pipe, a socket pair): a descriptor that is used
 * so is taken for it, and the report says so; where the recording knows better, that holds. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "answer.h"
#include "user_memory.h"
#include "vessel.h"

#define PIPE_BYTES 65536ul /* pipe(7), "Pipe capacity" */
#define PART 4096
#define EVENT_MAX (UINT64_MAX - 1) /* eventfd(2) */

static struct opened *peer_of(struct vessel *vessel, const struct opened *file)
{
	return file->peer ? &vessel->desk.files[file->peer - 1] : NULL;
}

/* Two files that are each other's other end; false: too many are open. */
static bool open_two(struct vessel *vessel, int kind, uint32_t flags, struct opened *ends[2])
{
	struct desk *desk = &vessel->desk;

	for (int i = 0; i < 2; i++) {
		ends[i] = desk_open(desk, -1, kind, flags | O_RDWR);
		if (!ends[i] && i)
			desk_release(desk, NULL, ends[0]);
		if (!ends[i])
			return false;
	}
	ends[0]->peer = (int16_t)(ends[1] - desk->files + 1);
	ends[1]->peer = (int16_t)(ends[0] - desk->files + 1);
	return true;
}

/* The recorded descriptor is that file, and waits as it was told to. */
static void place(struct vessel *vessel, int number, struct opened *file)
{
	file->flags = O_RDWR | (desk_silent_waits(&vessel->desk, number) ? 0 : O_NONBLOCK);
	file->recorded = true;
	vessel->desk.table[number] = (int16_t)(file - vessel->desk.files);
	file->nowhere = false;
}

struct opened *channel_find(struct vessel *vessel, int number)
{
	struct desk *desk = &vessel->desk;
	struct opened *file = desk_find(desk, number);

	/* pipe(2) and socketpair(2) give neighbouring numbers. */
	for (int beside = -1; !file && number > 2 && beside < 2; beside += 2) {
		struct opened *other = desk_find(desk, number - beside);
		struct opened *peer = other ? peer_of(vessel, other) : NULL;
		if (!peer || !peer->nowhere || !desk_may_be(desk, &vessel->record, number))
			continue;
		place(vessel, number, peer);
		file = peer;
	}
	return file;
}

static bool may_be(const struct vessel *vessel, int number, int kind)
{
	const struct identity *record = &vessel->record;

	if (!desk_may_be(&vessel->desk, record, number))
		return false;
	return !record->descriptors_told || record->descriptor_kind[number] == kind;
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
	if (!desk_may_be(&vessel->desk, &vessel->record, number))
		return false;
	desk_take_for_silent(&vessel->desk, number);
	tell(vessel, number, OPENED_NOTHING);
	return true;
}

struct opened *channel_adopt(struct vessel *vessel, int number, int kind)
{
	struct opened *ends[2] = {NULL, NULL};

	if (!may_be(vessel, number, kind))
		return NULL;
	if (kind != OPENED_PIPE && kind != OPENED_PAIR) {
		ends[0] = desk_open(&vessel->desk, -1, kind, 0);
		if (!ends[0])
			return NULL;
	} else {
		if (!open_two(vessel, kind, 0, ends))
			return NULL;
		int other = vessel->record.descriptors_told ? vessel->record.descriptor_peer[number] : -1;
		ends[1]->nowhere = true;
		if (desk_may_be(&vessel->desk, &vessel->record, other))
			place(vessel, other, ends[1]);
	}
	place(vessel, number, ends[0]);
	tell(vessel, number, kind);
	return ends[0];
}

short channel_ready(struct vessel *vessel, struct opened *file)
{
	struct signal_sets sets;

	if (!file)
		return POLLNVAL;
	struct opened *peer = peer_of(vessel, file);
	short in = file->held && file->held->len ? POLLIN | POLLRDNORM : 0;
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
		if ((file->flags & O_ACCMODE) == O_RDONLY)
			return (short)(in | (peer ? 0 : POLLHUP));
		if (!peer)
			return POLLOUT | POLLWRNORM | POLLERR;
		return (short)(in | (peer->held && peer->held->len >= PIPE_BYTES ? 0 : POLLOUT | POLLWRNORM));
	case OPENED_PAIR:
		if (!peer)
			return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLRDHUP;
		return (short)(in | (peer->held && peer->held->len >= PIPE_BYTES ? 0 : POLLOUT | POLLWRNORM));
	case OPENED_EVENT:
		return (short)((file->offset ? POLLIN | POLLRDNORM : 0) |
			       ((uint64_t)file->offset < EVENT_MAX ? POLLOUT | POLLWRNORM : 0));
	case OPENED_SIGNALS:
		signals_read(vessel, &sets);
		return sets.pending & (uint64_t)file->offset ? POLLIN | POLLRDNORM : 0;
	case OPENED_TIMER:
		return timer_is_ready(vessel, file) ? POLLIN | POLLRDNORM : 0;
	case OPENED_EPOLL:
		return epoll_is_ready(vessel, file) ? POLLIN | POLLRDNORM : 0;
	default:
		return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	}
}

int64_t channel_later(struct vessel *vessel, const struct system_call *call, bool at_once)
{
	if (!at_once)
		return answer_waits(vessel, call, 0);
	vessel->felt_calls--; /* nothing has changed: who asks again and again goes in a circle */
	return -EAGAIN;
}

static int64_t later(struct vessel *vessel, const struct system_call *call, const struct opened *file)
{
	return channel_later(vessel, call, file->flags & O_NONBLOCK);
}

static int64_t read_event(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
			  uint64_t len)
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

static int64_t write_event(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
			   uint64_t len)
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

static int64_t read_signals(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
			    uint64_t len)
{
	struct system_call into = *call;

	if (len < sizeof(struct signalfd_siginfo))
		return -EINVAL;
	if (!(channel_ready(vessel, file) & POLLIN))
		return later(vessel, call, file);
	into.args[1] = at;
	return signals_take_record(vessel, &into, (uint64_t)file->offset);
}

static int64_t read_bytes(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
			  uint64_t len)
{
	if (!len)
		return 0;
	if (!file->held || !file->held->len)
		return file->peer ? later(vessel, call, file) : 0;
	if (len > file->held->len)
		len = file->held->len;
	if (user_store(vessel->pager, at, file->held->bytes, len) < 0)
		return -EFAULT;
	int rc = desk_take(file, 0, len);
	return rc < 0 ? rc : (int64_t)len;
}

static int64_t write_bytes(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
			   uint64_t len)
{
	struct opened *peer = peer_of(vessel, file);
	uint8_t bytes[PART];
	uint64_t done = 0;

	if (!peer) {
		siginfo_t info = {.si_signo = SIGPIPE, .si_code = SI_USER};
		info.si_pid = vessel->record.pid;
		info.si_uid = vessel->record.uid;
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
		int rc = desk_hold(peer, bytes, part);
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
		return timer_read(vessel, call, file, at, len);
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

static int64_t install(struct vessel *vessel, struct opened *file, bool close_on_exec)
{
	int number = file ? desk_install(&vessel->desk, &vessel->record, file, 0, close_on_exec) : -EMFILE;

	if (file && number < 0)
		desk_release(&vessel->desk, NULL, file);
	return number;
}

/* pipe(2), socketpair(2): two descriptors, whose numbers go to `to`. */
static int64_t two(struct vessel *vessel, int kind, uint32_t flags, uint64_t to)
{
	struct opened *ends[2];
	int32_t numbers[2];

	if (!open_two(vessel, kind, flags & O_NONBLOCK, ends))
		return -EMFILE;
	if (kind == OPENED_PIPE) {
		ends[0]->flags = (flags & O_NONBLOCK) | O_RDONLY;
		ends[1]->flags = (flags & O_NONBLOCK) | O_WRONLY;
	}
	numbers[0] = (int32_t)install(vessel, ends[0], flags & O_CLOEXEC);
	if (numbers[0] < 0) {
		desk_release(&vessel->desk, NULL, ends[1]);
		return numbers[0];
	}
	numbers[1] = (int32_t)install(vessel, ends[1], flags & O_CLOEXEC);
	int rc = numbers[1] < 0 ? numbers[1] : user_store(vessel->pager, to, numbers, sizeof(numbers));
	if (rc < 0) {
		desk_drop(&vessel->desk, NULL, numbers[0]);
		desk_drop(&vessel->desk, NULL, numbers[1]);
	}
	return rc;
}

static int64_t event(struct vessel *vessel, uint32_t count, uint32_t flags)
{
	struct opened *file;

	if (flags & ~(uint32_t)(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE))
		return -EINVAL;
	file = desk_open(&vessel->desk, -1, OPENED_EVENT, O_RDWR | (flags & O_NONBLOCK));
	if (file) {
		file->offset = count;
		file->semaphore = flags & EFD_SEMAPHORE;
	}
	return install(vessel, file, flags & EFD_CLOEXEC);
}

static int64_t signalfd_(struct vessel *vessel, const struct system_call *call, uint32_t flags)
{
	struct opened *file = desk_find(&vessel->desk, (int)call->args[0]);
	uint64_t set;

	if ((flags & ~(uint32_t)(SFD_CLOEXEC | SFD_NONBLOCK)) || call->args[2] != sizeof(set))
		return -EINVAL;
	if (user_load(vessel->pager, call->args[1], &set, sizeof(set)) < 0)
		return -EFAULT;
	set &= ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
	if ((int)call->args[0] == -1) {
		file = desk_open(&vessel->desk, -1, OPENED_SIGNALS, O_RDWR | (flags & O_NONBLOCK));
		if (file)
			file->offset = (int64_t)set;
		return install(vessel, file, flags & SFD_CLOEXEC);
	}
	if (!file)
		return answer_bad_descriptor(vessel, call, (int)call->args[0]);
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
		return policy_note_refusal(vessel, call, EMFILE);
	return two(vessel, OPENED_PAIR, type & (SOCK_CLOEXEC | SOCK_NONBLOCK), call->args[3]);
}

int64_t answer_channel(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_pipe:
		return two(vessel, OPENED_PIPE, 0, call->args[0]);
	case SYS_pipe2:
		if (call->args[1] & ~(uint64_t)(O_CLOEXEC | O_NONBLOCK))
			return call->args[1] & O_DIRECT ? policy_note_refusal(vessel, call, EINVAL) : -EINVAL;
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
