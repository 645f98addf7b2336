/* answer_transfer.c - reading the files that the program opened, and what it prints. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "process/account.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"

#define CHUNK 65536
#define VECTOR_MAX 1024 /* UIO_MAXIOV */
#define AT_ONCE (1ul << 20) /* bytes that one call moves at most; read(2) and write(2) may do less than asked */
#define HERE INT64_MIN /* at the descriptor's own offset */

/* `len` bytes of the program's memory become its output; how many did. */
static int64_t print(struct vessel *vessel, uint64_t from, uint64_t len)
{
	uint8_t bytes[4096];
	uint64_t done = 0;

	while (done < len) {
		uint64_t at = from + done, part = sizeof(bytes) - (at & (sizeof(bytes) - 1));
		if (part > len - done)
			part = len - done;
		if (user_load(vessel->pager, at, bytes, part) < 0)
			return done ? (int64_t)done : -EFAULT;
		int rc = account_output(vessel, bytes, part);
		if (rc < 0)
			return done ? (int64_t)done : rc;
		done += part;
	}
	return (int64_t)done;
}

/* `len` bytes of the file at `offset` into the program's memory; how many there were. */
static int64_t fetch(struct vessel *vessel, const struct opened *file, uint64_t to, uint64_t len, int64_t offset)
{
	uint8_t bytes[CHUNK];
	uint64_t done = 0;

	while (done < len) {
		uint64_t part = len - done < sizeof(bytes) ? len - done : sizeof(bytes);
		ssize_t got = pread(file->fd, bytes, part, offset + (int64_t)done);
		if (got < 0)
			return done ? (int64_t)done : -errno;
		if (got > 0 && user_store(vessel->pager, to + done, bytes, (size_t)got) < 0)
			return done && !vessel->pager->over_limit ? (int64_t)done : -EFAULT;
		done += (uint64_t)got;
		if ((uint64_t)got < part)
			break;
	}
	return (int64_t)done;
}

static void note(struct vessel *vessel, struct opened *file)
{
	if (file->told != vessel->turn)
		account_note_read(vessel, file->fd);
	file->told = vessel->turn;
}

static int64_t read_part(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t to, uint64_t len, int64_t offset)
{
	switch (file->kind) {
	case OPENED_FILE: {
		int64_t got = fetch(vessel, file, to, len, offset == HERE ? file->offset : offset);
		if (got > 0)
			note(vessel, file);
		if (offset == HERE && got > 0)
			file->offset += got;
		return got;
	}
	case OPENED_INPUT:
		return offset == HERE ? 0 : -ESPIPE;
	case OPENED_DIRECTORY:
		return -EISDIR;
	case OPENED_SOCKET:
		return offset == HERE ? -ENOTCONN : -ESPIPE;
	case OPENED_PATH:
		return -EBADF;
	default:
		return offset == HERE ? channel_read(vessel, call, file, to, len) : -ESPIPE;
	}
}

static int64_t write_part(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t from, uint64_t len, int64_t offset)
{
	if (file->kind == OPENED_SOCKET)
		return -ENOTCONN;
	if (file->kind >= OPENED_PIPE)
		return offset == HERE ? channel_write(vessel, call, file, from, len) : -ESPIPE;
	if (file->kind != OPENED_OUTPUT)
		return -EBADF;
	return offset == HERE ? print(vessel, from, len) : -ESPIPE;
}

typedef int64_t transfer_part(struct vessel *, const struct system_call *, struct opened *, uint64_t, uint64_t, int64_t);

static int64_t vector(struct vessel *vessel, struct opened *file, const struct system_call *call,
		      int64_t offset, transfer_part *part)
{
	uint64_t count = call->args[2], room = AT_ONCE;
	int64_t done = 0, began = file->offset;

	if (count > VECTOR_MAX)
		return -EINVAL;
	for (uint64_t i = 0; i < count; i++) {
		struct iovec one;
		if (user_load(vessel->pager, call->args[1] + i * sizeof(one), &one, sizeof(one)) < 0)
			return done ? done : -EFAULT;
		if (!one.iov_len)
			continue;
		int64_t at = offset == HERE ? HERE : offset + done;
		uint64_t len = one.iov_len < room ? one.iov_len : room;
		int64_t got = part(vessel, call, file, (uint64_t)one.iov_base, len, at);
		if (vessel->pager->over_limit) {
			file->offset = began;
			return got;
		}
		if (got < 0)
			return done ? done : got;
		done += got;
		room -= (uint64_t)got;
		if ((uint64_t)got < one.iov_len)
			break;
	}
	return done;
}

/* The recorded descriptor by which an event loop may be woken; or NULL. */
static struct opened *woken(struct vessel *vessel, const struct system_call *call)
{
	int number = (int)call->args[0];
	uint64_t value;
	struct opened *file = NULL;

	if (call->args[2] == 1 || vessel->identity.descriptors_told)
		file = channel_adopt(vessel, number, OPENED_PIPE);
	if (!file && vessel->identity.descriptors_told)
		file = channel_adopt(vessel, number, OPENED_PAIR);
	if (file || call->args[2] != sizeof(value) ||
	    user_load(vessel->pager, call->args[1], &value, sizeof(value)) < 0)
		return file;
	return value && value <= UINT32_MAX ? channel_adopt(vessel, number, OPENED_EVENT) : NULL;
}

/* Where a call reads or writes; -EINVAL. */
static int offset_of(const struct system_call *call, int64_t *offset)
{
	int64_t asked = (int64_t)call->args[3];

	*offset = HERE;
	switch (call->nr) {
	case SYS_pread64:
	case SYS_pwrite64:
	case SYS_preadv:
	case SYS_pwritev:
		*offset = asked;
		return asked < 0 ? -EINVAL : 0;
	case SYS_preadv2:
	case SYS_pwritev2:
		*offset = asked == -1 ? HERE : asked;
		return asked < -1 ? -EINVAL : 0;
	default:
		return 0;
	}
}

int64_t answer_transfer(struct vessel *vessel, const struct system_call *call)
{
	const uint64_t *a = call->args;
	struct opened *file = channel_find(vessel, (int)a[0]);
	uint64_t len = a[2] < AT_ONCE ? a[2] : AT_ONCE;
	int64_t offset, rc = offset_of(call, &offset);

	if (rc < 0)
		return rc;
	if (!file && call->nr == SYS_write)
		file = woken(vessel, call);
	bool reads = call->nr == SYS_read || call->nr == SYS_readv || call->nr == SYS_preadv2;
	int64_t silent = !file && reads && offset == HERE ? channel_read_silent(vessel, call) : ANSWER_NOT_MINE;
	if (silent != ANSWER_NOT_MINE)
		return silent;
	if (!file)
		return refuse_descriptor(vessel, call, (int)a[0]);
	switch (call->nr) {
	case SYS_read:
	case SYS_pread64:
		return read_part(vessel, call, file, a[1], len, offset);
	case SYS_write:
	case SYS_pwrite64:
		return write_part(vessel, call, file, a[1], len, offset);
	case SYS_readv:
	case SYS_preadv:
	case SYS_preadv2:
		return vector(vessel, file, call, offset, read_part);
	case SYS_writev:
	case SYS_pwritev:
	case SYS_pwritev2:
		return vector(vessel, file, call, offset, write_part);
	default:
		return ANSWER_NOT_MINE;
	}
}
