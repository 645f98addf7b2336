/* answer_descriptor.c - system calls about descriptors: the program's own table of them, which lies in
 * the server. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <termios.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "process/account.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/channel.h"
#include "syscalls/refuse.h"

#define KEPT_FLAGS (O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME) /* what F_SETFL can change */
#define CHUNK 32768

static int64_t duplicate(struct vessel *vessel, struct opened *file, int64_t lowest, bool close_on_exec)
{
	if (lowest < 0 || lowest >= DESCRIPTORS_MAX)
		return -EINVAL;
	int number = fd_table_install(&vessel->kernel_state, &vessel->identity, file, lowest, close_on_exec);
	file->refs = (uint16_t)(file->refs + (number >= 0));
	return number;
}

static int64_t dup_onto(struct vessel *vessel, struct opened *file, int64_t from, int64_t to, uint64_t flags)
{
	if (flags & ~(uint64_t)O_CLOEXEC)
		return -EINVAL;
	if (to < 0 || to >= DESCRIPTORS_MAX)
		return -EBADF;
	if (from != to)
		fd_table_replace(&vessel->kernel_state, account_saved(vessel), (int)to, file, flags & O_CLOEXEC);
	return to;
}

static int64_t close_range_(struct vessel *vessel, const struct system_call *call)
{
	uint64_t first = (uint32_t)call->args[0], last = (uint32_t)call->args[1];

	if (first > last || (call->args[2] & ~(uint64_t)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
		return -EINVAL;
	for (uint64_t i = first; i <= last && i < DESCRIPTORS_MAX; i++)
		if (!(call->args[2] & CLOSE_RANGE_CLOEXEC))
			fd_table_drop(&vessel->kernel_state, account_saved(vessel), (int64_t)i);
		else if (fd_table_find(&vessel->kernel_state, (int64_t)i))
			fd_table_close_on_exec(&vessel->kernel_state, (int)i, true);
	return 0;
}

static int64_t fcntl_(struct vessel *vessel, const struct system_call *call, int number, struct opened *file)
{
	struct kernel_state *state = &vessel->kernel_state;
	uint32_t command = (uint32_t)call->args[1];

	switch (command) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return duplicate(vessel, file, (int)call->args[2], command == F_DUPFD_CLOEXEC);
	case F_GETFD:
		return fd_table_closes_on_exec(state, number) ? FD_CLOEXEC : 0;
	case F_SETFD:
		fd_table_close_on_exec(state, number, call->args[2] & FD_CLOEXEC);
		return 0;
	case F_GETFL:
		return file->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC);
	case F_SETFL:
		file->flags = (file->flags & ~(uint32_t)KEPT_FLAGS) | ((uint32_t)call->args[2] & KEPT_FLAGS);
		return 0;
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return refuse_note(vessel, call, ENOLCK);
	default:
		return refuse_note(vessel, call, EINVAL);
	}
}

static int64_t ioctl_(struct vessel *vessel, const struct system_call *call, int number, struct opened *file)
{
	int on, left = 0;

	switch ((uint32_t)call->args[1]) {
	case TCGETS: /* isatty(3) and stdio ask; there is no terminal */
	case TIOCGWINSZ:
	case TIOCGPGRP:
		return -ENOTTY;
	case FIOCLEX:
	case FIONCLEX:
		fd_table_close_on_exec(&vessel->kernel_state, number, (uint32_t)call->args[1] == FIOCLEX);
		return 0;
	case FIONBIO:
		if (user_load(vessel->pager, call->args[2], &on, sizeof(on)) < 0)
			return -EFAULT;
		file->flags = on ? file->flags | O_NONBLOCK : file->flags & ~(uint32_t)O_NONBLOCK;
		return 0;
	case FIONREAD:
		if (file->kind == OPENED_FILE) {
			off_t end = lseek(file->fd, 0, SEEK_END);
			left = end > file->offset ? (int)(end - file->offset) : 0;
		} else if (file->kind == OPENED_PIPE || file->kind == OPENED_PAIR) {
			left = file->held ? (int)file->held->len : 0;
		}
		return user_store(vessel->pager, call->args[2], &left, sizeof(left));
	default:
		return refuse_note(vessel, call, ENOTTY);
	}
}

static int64_t lseek_(const struct system_call *call, struct opened *file)
{
	int64_t offset = (int64_t)call->args[1], to;
	int whence = (int)call->args[2];

	if (file->kind != OPENED_FILE && file->kind != OPENED_DIRECTORY)
		return file->kind == OPENED_PATH ? -EBADF : -ESPIPE;
	if (whence == SEEK_CUR) {
		if (__builtin_add_overflow(file->offset, offset, &to))
			return -EOVERFLOW;
		to = lseek(file->fd, to, SEEK_SET);
	} else {
		to = lseek(file->fd, offset, whence);
	}
	if (to < 0)
		return -errno;
	return file->offset = to;
}

static int64_t getdents_(struct vessel *vessel, const struct system_call *call, struct opened *file)
{
	uint64_t room = call->args[2] < CHUNK ? call->args[2] : CHUNK;
	uint8_t entries[CHUNK];

	if (file->kind != OPENED_DIRECTORY)
		return file->kind == OPENED_PATH ? -EBADF : -ENOTDIR;
	if (lseek(file->fd, file->offset, SEEK_SET) < 0)
		return -errno;
	ssize_t got = syscall(SYS_getdents64, file->fd, entries, room);
	if (got < 0)
		return -errno;
	if (user_store(vessel->pager, call->args[1], entries, (size_t)got) < 0)
		return -EFAULT;
	file->offset = lseek(file->fd, 0, SEEK_CUR);
	account_note_read(vessel, file->fd);
	return got;
}

static int64_t fchdir_(struct vessel *vessel, struct opened *file)
{
	struct kernel_state *state = &vessel->kernel_state;
	char link[64], path[4096];

	if (file->fd < 0 || (file->kind != OPENED_DIRECTORY && file->kind != OPENED_PATH))
		return -ENOTDIR;
	snprintf(link, sizeof(link), "/proc/self/fd/%d/.", file->fd);
	if (access(link, X_OK) < 0)
		return -errno;
	link[strlen(link) - 2] = 0;
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return -errno;
	path[len] = 0;
	file->refs++;
	if (state->directory >= 0)
		fd_table_release(state, account_saved(vessel), &state->files[state->directory]);
	state->directory = (int16_t)(file - state->files);
	memcpy(state->cwd, path, (size_t)len + 1);
	return 0;
}

static int64_t fstatfs_(struct vessel *vessel, const struct system_call *call, struct opened *file)
{
	struct statfs info;

	if (file->fd < 0)
		return -ENOSYS;
	if (fstatfs(file->fd, &info) < 0)
		return -errno;
	return user_store(vessel->pager, call->args[1], &info, sizeof(info));
}

static int64_t about_file(struct vessel *vessel, const struct system_call *call, int number, struct opened *file)
{
	switch (call->nr) {
	case SYS_dup:
		return duplicate(vessel, file, 0, false);
	case SYS_dup2:
		return dup_onto(vessel, file, number, (int)call->args[1], 0);
	case SYS_dup3:
		return number == (int)call->args[1] ? -EINVAL :
						      dup_onto(vessel, file, number, (int)call->args[1], call->args[2]);
	case SYS_fcntl:
		return fcntl_(vessel, call, number, file);
	case SYS_ioctl:
		return ioctl_(vessel, call, number, file);
	case SYS_lseek:
		return lseek_(call, file);
	case SYS_getdents64:
		return getdents_(vessel, call, file);
	case SYS_fchdir:
		return fchdir_(vessel, file);
	case SYS_fstatfs:
		return fstatfs_(vessel, call, file);
	case SYS_readahead:
	case SYS_fadvise64:
		return file->kind == OPENED_FILE ? 0 : -ESPIPE;
	case SYS_fsync: /* nothing was written */
	case SYS_fdatasync:
	case SYS_syncfs:
	case SYS_sync_file_range:
		return file->kind == OPENED_FILE || file->kind == OPENED_DIRECTORY ? 0 : -EINVAL;
	default:
		return ANSWER_NOT_MINE;
	}
}

int64_t answer_descriptor(struct vessel *vessel, const struct system_call *call)
{
	int number = (int)call->args[0]; /* as the kernel takes it: the upper half does not count */
	int64_t silent = answer_silent(vessel, call);

	if (silent != ANSWER_NOT_MINE)
		return silent;
	if (call->nr == SYS_close_range)
		return close_range_(vessel, call);
	struct opened *file = channel_find(vessel, number);
	if (call->nr == SYS_close)
		return fd_table_drop(&vessel->kernel_state, account_saved(vessel), number);
	return file ? about_file(vessel, call, number, file) : refuse_descriptor(vessel, call, number);
}
