/* answer_path.c - system calls that name a file.  What was found (lookup.c) is looked at, and only then
 * opened, for reading: that very thing.  Devices, FIFOs and sockets are not opened. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "process/account.h"
#include "process/user.h"
#include "syscalls/answer.h"
#include "syscalls/lookup.h"
#include "syscalls/refuse.h"

/* That very file or directory, opened for reading; without a trace in its access time where we may. */
static int reopen(int fd, uint64_t flags)
{
	char link[64];
	int how = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (int)(flags & O_DIRECTORY);

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	int opened = open(link, how | O_NOATIME);
	if (opened < 0 && errno == EPERM)
		opened = open(link, how);
	return opened < 0 ? -errno : opened;
}

static int64_t install(struct vessel *vessel, int fd, int kind, uint64_t flags)
{
	struct opened *file = fd_table_open(&vessel->kernel_state, fd, kind, (uint32_t)flags & ~(uint32_t)O_CLOEXEC);
	int number = file ? fd_table_install(&vessel->kernel_state, &vessel->identity, file, 0, flags & O_CLOEXEC) : -EMFILE;

	if (number < 0) {
		if (file)
			*file = (struct opened){.fd = -1};
		close(fd);
	}
	return number;
}

static int64_t open_found(struct vessel *vessel, const struct system_call *call, struct found found,
			  uint64_t flags)
{
	struct stat info = found.info;
	int kind = OPENED_FILE, fd = found.fd;

	if (found.own)
		return install(vessel, fd, OPENED_FILE, flags & ~(uint64_t)O_PATH);
	if (flags & O_PATH)
		return install(vessel, fd, OPENED_PATH, flags);
	int error = 0;
	if (S_ISLNK(info.st_mode))
		error = ELOOP;
	else if ((flags & O_DIRECTORY) && !S_ISDIR(info.st_mode))
		error = ENOTDIR;
	else if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
		error = EACCES;
	if (error == EACCES)
		refuse_note(vessel, call, EACCES);
	if (S_ISDIR(info.st_mode))
		kind = OPENED_DIRECTORY;
	int opened = error ? -error : reopen(fd, kind == OPENED_DIRECTORY ? O_DIRECTORY : 0);
	close(fd);
	return opened < 0 ? opened : install(vessel, opened, kind, flags);
}

static int64_t open_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		     uint64_t flags, uint64_t resolve)
{
	struct found found;
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;

	if (flags & O_PATH)
		flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	else if (writes)
		return refuse_note(vessel, call, vessel->policy.read_files ? EROFS : EACCES);
	int rc = lookup(vessel, call, base, path, flags & (O_NOFOLLOW | O_DIRECTORY), resolve, &found);
	if (rc == -ENOENT && (flags & O_CREAT))
		return refuse_note(vessel, call, EROFS);
	if (rc < 0)
		return rc;
	if ((flags & O_CREAT) && (flags & O_EXCL)) {
		close(found.fd);
		return -EEXIST;
	}
	int64_t number = open_found(vessel, call, found, flags);
	if (number >= 0)
		account_note_opened(vessel, call, path);
	return number;
}

static int64_t openat2_(struct vessel *vessel, const struct system_call *call)
{
	struct open_how how;

	if (call->args[3] < sizeof(how))
		return -EINVAL;
	if (user_load(vessel->pager, call->args[2], &how, sizeof(how)) < 0)
		return -EFAULT;
	if ((how.resolve & ~(uint64_t)RESOLVE_KNOWN) || how.flags >> 32 ||
	    (how.mode && !(how.flags & O_CREAT) && (how.flags & O_TMPFILE) != O_TMPFILE))
		return -EINVAL;
	return open_(vessel, call, (int)call->args[0], call->args[1], how.flags, how.resolve);
}

static int64_t stat_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		     uint64_t to, uint64_t at)
{
	struct found found;

	if ((uint32_t)at & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH))
		return -EINVAL;
	int kind = lookup_at(vessel, call, base, path, at, &found);
	if (kind < 0)
		return kind;
	lookup_release(&found);
	return user_store(vessel->pager, to, &found.info, sizeof(found.info));
}

static int64_t statx_(struct vessel *vessel, const struct system_call *call)
{
	struct found found;
	union { /* struct statx; its first fields where it is made up */
		uint8_t bytes[256];
		struct statx named;
	} out = {{0}};
	if ((uint32_t)call->args[2] & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE))
		return -EINVAL;
	int kind = lookup_at(vessel, call, (int)call->args[0], call->args[1], call->args[2], &found), rc = 0;

	if (kind < 0)
		return kind;
	if (found.fd < 0) {
		out.named.stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK;
		out.named.stx_mode = (uint16_t)found.info.st_mode;
		out.named.stx_nlink = 1;
		out.named.stx_blksize = 4096;
	} else {
		if (syscall(SYS_statx, found.fd, "", AT_EMPTY_PATH | (call->args[2] & AT_STATX_SYNC_TYPE),
			    call->args[3], &out) < 0)
			rc = -errno;
		lookup_release(&found);
	}
	return rc < 0 ? rc : user_store(vessel->pager, call->args[4], &out, sizeof(out));
}

static int64_t access_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		       uint64_t mode, uint64_t at)
{
	struct found found;
	int kind;

	if (mode & ~7ul)
		return -EINVAL;
	kind = lookup_at(vessel, call, base, path, at, &found);
	if (kind < 0)
		return kind;
	int rc = 0;
	if (found.fd >= 0 && !found.own) {
		if (syscall(SYS_faccessat2, found.fd, "", (int)mode & ~W_OK, AT_EMPTY_PATH | (at & AT_EACCESS)) < 0)
			rc = -errno;
	}
	lookup_release(&found);
	return rc < 0 ? rc : mode & W_OK ? -EROFS : 0;
}

static int64_t readlink_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
			 uint64_t to, uint64_t room)
{
	struct found found;
	char text[PATH_BYTES];
	ssize_t len;

	if ((int)room <= 0)
		return -EINVAL;
	int rc = user_load_string(vessel->pager, path, text, sizeof(text));
	if (rc < 0)
		return rc;
	const char *own = lookup_own_part(vessel, text);
	if (own && !strcmp(own, "exe") && vessel->policy.read_files) {
		len = (ssize_t)strlen(vessel->identity.executable);
		memcpy(text, vessel->identity.executable, (size_t)len);
	} else if (own && !strcmp(own, "cwd") && vessel->policy.read_files) {
		len = (ssize_t)strlen(vessel->kernel_state.cwd);
		memcpy(text, vessel->kernel_state.cwd, (size_t)len);
	} else {
		rc = lookup_at(vessel, call, base, path, AT_SYMLINK_NOFOLLOW | (rc ? 0 : AT_EMPTY_PATH), &found);
		if (rc < 0)
			return rc;
		len = found.fd >= 0 ? readlinkat(found.fd, "", text, sizeof(text)) : -1;
		if (len < 0)
			len = found.fd >= 0 && !found.own ? -errno : -EINVAL;
		else
			account_note_read(vessel, found.fd);
		lookup_release(&found);
	}
	if (len < 0)
		return len;
	if ((uint64_t)len > room)
		len = (ssize_t)room;
	rc = user_store(vessel->pager, to, text, (size_t)len);
	return rc < 0 ? rc : len;
}

static int64_t statfs_(struct vessel *vessel, const struct system_call *call)
{
	struct found found;
	struct statfs info;
	int rc = lookup_at(vessel, call, AT_FDCWD, call->args[0], 0, &found);

	if (rc < 0)
		return rc;
	rc = fstatfs(found.fd, &info) < 0 ? -errno : 0;
	lookup_release(&found);
	return rc < 0 ? rc : user_store(vessel->pager, call->args[1], &info, sizeof(info));
}

static int64_t chdir_(struct vessel *vessel, const struct system_call *call)
{
	struct found found;
	struct kernel_state *state = &vessel->kernel_state;
	char link[64], path[PATH_BYTES];
	int rc = lookup(vessel, call, AT_FDCWD, call->args[0], O_DIRECTORY, 0, &found);

	if (rc < 0)
		return rc;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", found.fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (found.own || len < 0 || syscall(SYS_faccessat2, found.fd, "", X_OK, AT_EMPTY_PATH) < 0) {
		close(found.fd);
		return found.own ? -ENOTDIR : -EACCES;
	}
	path[len] = 0;
	struct opened *file = fd_table_open(state, found.fd, OPENED_PATH, O_PATH);
	if (!file) {
		close(found.fd);
		return -EMFILE;
	}
	if (state->directory >= 0)
		fd_table_release(state, account_saved(vessel), &state->files[state->directory]);
	state->directory = (int16_t)(file - state->files);
	memcpy(state->cwd, path, (size_t)len + 1);
	return 0;
}

static int64_t getcwd_(struct vessel *vessel, const struct system_call *call)
{
	size_t len = strlen(vessel->kernel_state.cwd) + 1;

	if (call->args[1] < len)
		return -ERANGE;
	int64_t rc = user_store(vessel->pager, call->args[0], vessel->kernel_state.cwd, len);
	return rc < 0 ? rc : (int64_t)len;
}

int64_t answer_path(struct vessel *vessel, const struct system_call *call)
{
	const uint64_t *a = call->args;
	uint64_t here = (uint64_t)AT_FDCWD;

	switch (call->nr) {
	case SYS_open:
		return open_(vessel, call, AT_FDCWD, a[0], a[1], 0);
	case SYS_openat:
		return open_(vessel, call, (int)a[0], a[1], a[2], 0);
	case SYS_openat2:
		return openat2_(vessel, call);
	case SYS_stat:
		return stat_(vessel, call, (int)here, a[0], a[1], 0);
	case SYS_lstat:
		return stat_(vessel, call, (int)here, a[0], a[1], AT_SYMLINK_NOFOLLOW);
	case SYS_newfstatat:
		return stat_(vessel, call, (int)a[0], a[1], a[2], a[3]);
	case SYS_fstat:
		return stat_(vessel, call, (int)a[0], 0, a[1], AT_EMPTY_PATH);
	case SYS_statx:
		return statx_(vessel, call);
	case SYS_access:
		return access_(vessel, call, (int)here, a[0], a[1], 0);
	case SYS_faccessat:
		return access_(vessel, call, (int)a[0], a[1], a[2], 0);
	case SYS_faccessat2:
		return access_(vessel, call, (int)a[0], a[1], a[2], a[3]);
	case SYS_readlink:
		return readlink_(vessel, call, (int)here, a[0], a[1], a[2]);
	case SYS_readlinkat:
		return readlink_(vessel, call, (int)a[0], a[1], a[2], a[3]);
	case SYS_statfs:
		return statfs_(vessel, call);
	case SYS_chdir:
		return chdir_(vessel, call);
	case SYS_getcwd:
		return getcwd_(vessel, call);
	default:
		return ANSWER_NOT_MINE;
	}
}
