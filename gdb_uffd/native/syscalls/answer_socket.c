/* answer_socket.c - sockets by which nobody is reached: what the program would have reached with one is refused by
 * name (answer_message.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"

static int64_t socket_(struct vessel *vessel, const struct system_call *call)
{
	struct opened *file = fd_table_open(&vessel->kernel_state, -1, OPENED_SOCKET, O_RDWR | (call->args[1] & O_NONBLOCK));

	if (!file)
		return -EMFILE;
	int number = fd_table_install(&vessel->kernel_state, &vessel->identity, file, 0, call->args[1] & SOCK_CLOEXEC);
	if (number < 0)
		*file = (struct opened){.fd = -1};
	else
		file->offset = (int64_t)(call->args[0] & 0xffff); /* its address family */
	return number;
}

static int64_t socket_question(struct vessel *vessel, const struct system_call *call, struct opened *file)
{
	uint16_t family = file->kind == OPENED_PAIR ? AF_UNIX : (uint16_t)file->offset;
	uint32_t len, zero = 0;

	if (file->kind != OPENED_SOCKET && file->kind != OPENED_PAIR)
		return -ENOTSOCK;
	if (call->nr == SYS_getpeername && file->kind != OPENED_PAIR)
		return refuse_note(vessel, call, ENOTCONN);
	if (call->nr == SYS_setsockopt)
		return 0;
	if (call->nr == SYS_getsockopt) {
		int rc = user_load(vessel->pager, call->args[4], &len, sizeof(len));
		if (rc == 0 && len > sizeof(zero))
			len = sizeof(zero);
		if (rc == 0)
			rc = user_store(vessel->pager, call->args[3], &zero, len);
		return rc < 0 ? rc : user_store(vessel->pager, call->args[4], &len, sizeof(len));
	}
	struct sockaddr_storage none = {.ss_family = family};
	int rc = user_load(vessel->pager, call->args[2], &len, sizeof(len));
	uint32_t have = family == AF_INET6 ? 28 : family == AF_INET ? 16 : 2;
	if (rc == 0)
		rc = user_store(vessel->pager, call->args[1], &none, len < have ? len : have);
	return rc < 0 ? rc : user_store(vessel->pager, call->args[2], &have, sizeof(have));
}

int64_t answer_socket(struct vessel *vessel, const struct system_call *call)
{
	struct opened *file;

	switch (call->nr) {
	case SYS_socket:
		return socket_(vessel, call);
	case SYS_getsockname:
	case SYS_getpeername:
	case SYS_setsockopt:
	case SYS_getsockopt:
		file = channel_find(vessel, (int)call->args[0]);
		return file ? socket_question(vessel, call, file) :
			      refuse_descriptor(vessel, call, (int)call->args[0]);
	default:
		return ANSWER_NOT_MINE;
	}
}
