/* answer_message.c - what is sent to a socket: the other end of a socket pair is the program's own, nobody else
 * is reached. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"

#define PARTS_MAX 1024 /* UIO_MAXIOV */

/* A message's parts, one after the other. */
static int64_t parts(struct vessel *vessel, const struct system_call *call, struct opened *file,
		     const struct msghdr *message, bool send)
{
	int64_t done = 0;

	for (uint64_t i = 0; i < message->msg_iovlen; i++) {
		struct iovec one;
		uint64_t at = (uint64_t)message->msg_iov + i * sizeof(one);
		if (user_load(vessel->pager, at, &one, sizeof(one)) < 0)
			return done ? done : -EFAULT;
		if (!one.iov_len)
			continue;
		if (!send && done && !(file->held && file->held->len))
			break;
		int64_t got = send ? channel_write(vessel, call, file, (uint64_t)one.iov_base, one.iov_len) :
				     channel_read(vessel, call, file, (uint64_t)one.iov_base, one.iov_len);
		if (got < 0)
			return done ? done : got;
		done += got;
		if ((uint64_t)got < one.iov_len)
			break;
	}
	return done;
}

static int64_t message_(struct vessel *vessel, const struct system_call *call, struct opened *file, bool send)
{
	struct msghdr message;

	if (user_load(vessel->pager, call->args[1], &message, sizeof(message)) < 0)
		return -EFAULT;
	if (message.msg_iovlen > PARTS_MAX)
		return -EMSGSIZE;
	if (send && message.msg_controllen) /* a descriptor on its way */
		return refuse_note(vessel, call, EPERM);
	int64_t done = parts(vessel, call, file, &message, send);
	if (done < 0 || send)
		return done;
	message.msg_namelen = 0;
	message.msg_controllen = 0;
	message.msg_flags = 0;
	return user_store(vessel->pager, call->args[1], &message, sizeof(message)) < 0 ? -EFAULT : done;
}

static int64_t take(struct vessel *vessel, const struct system_call *call, struct opened *file)
{
	uint32_t none = 0;

	int64_t done = channel_read(vessel, call, file, call->args[1], call->args[2]);
	if (done >= 0 && call->args[5] && user_store(vessel->pager, call->args[5], &none, sizeof(none)) < 0)
		return -EFAULT;
	return done;
}

/* Between the two ends of a pair. */
static int64_t transfer(struct vessel *vessel, const struct system_call *call, struct opened *file, bool send)
{
	bool whole = call->nr == SYS_sendmsg || call->nr == SYS_recvmsg;
	uint64_t flags = whole ? call->args[2] : call->args[3];
	uint32_t own = file->flags;
	int64_t result;

	if (flags & ~(uint64_t)(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC | MSG_WAITALL))
		return refuse_note(vessel, call, EOPNOTSUPP);
	if (call->nr == SYS_sendto && call->args[4])
		return -EISCONN;
	if (flags & MSG_DONTWAIT)
		file->flags |= O_NONBLOCK;
	if (whole)
		result = message_(vessel, call, file, send);
	else
		result = send ? channel_write(vessel, call, file, call->args[1], call->args[2]) : take(vessel, call, file);
	file->flags = own;
	return result;
}

int64_t answer_message(struct vessel *vessel, const struct system_call *call)
{
	bool send = call->nr == SYS_sendto || call->nr == SYS_sendmsg;
	int number = (int)call->args[0];

	if (!send && call->nr != SYS_recvfrom && call->nr != SYS_recvmsg)
		return ANSWER_NOT_MINE;
	struct opened *file = channel_find(vessel, number);
	if (!file && call->nr == SYS_sendto && call->args[2] == 1 && !call->args[4])
		file = channel_adopt(vessel, number, OPENED_PAIR);
	int64_t silent = !file && !send ? channel_read_silent(vessel, call) : ANSWER_NOT_MINE;
	if (silent != ANSWER_NOT_MINE)
		return silent;
	if (!file || file->kind == OPENED_SOCKET)
		return refuse_note(vessel, call, send ? EPERM : ENOTCONN);
	/* What a byte was written to is a pipe, or a socket pair after all. */
	if (file->kind == OPENED_PIPE && (file->flags & O_ACCMODE) == O_RDWR)
		file->kind = OPENED_PAIR;
	return file->kind == OPENED_PAIR ? transfer(vessel, call, file, send) : -ENOTSOCK;
}
