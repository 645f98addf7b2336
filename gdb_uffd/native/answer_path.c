/* answer_path.c - system calls that name a file.  The server looks it up itself, holds what it found
 * by an O_PATH descriptor, looks at what it is, and only then opens that very thing for reading: no link
 * and no rename in between can make it something else.  Devices, FIFOs and sockets are not opened,
 * and nothing of /proc that belongs to a process. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "answer.h"
#include "user_memory.h"
#include "vessel.h"

#define PATH_BYTES 4096
#define RESOLVE_KNOWN (RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT)

/* File systems that answer for the kernel or for a process (<linux/magic.h>): reading there can consume
 * (kmsg, trace_pipe) or tell of others. */
static const uint32_t closed_types[] = {
	0x9fa0,     /* proc */
	0x64626720, /* debugfs */
	0x74726163, /* tracefs */
	0x73636673, /* securityfs */
	0xcafe4a11, /* bpf */
	0x62656570, /* configfs */
	0x6165676c, /* pstore */
	0xde5e81e4, /* efivarfs */
	0xf97cff8c, /* selinux */
	0x43415d53, /* smack */
	0x19800202, /* mqueue */
};

/* Of /proc, what is no process's and can be read without an effect. */
static const char *const open_proc[] = {
	"/proc/cpuinfo", "/proc/meminfo", "/proc/stat",	      "/proc/version",
	"/proc/loadavg", "/proc/devices", "/proc/filesystems", "/proc/sys/",
};

struct found {
	int fd; /* O_PATH, or a file of ours that stands in for one of /proc/self */
	bool own, borrowed; /* the descriptor stays the desk's */
	struct stat info;
};

static void release(const struct found *found)
{
	if (found->fd >= 0 && !found->borrowed)
		close(found->fd);
}

/* Whether the file system with that file is one of those.  It is asked for once a device. */
static bool is_closed_type(struct vessel *vessel, int fd, uint64_t device, bool *proc)
{
	struct device *known = &vessel->devices[device % DEVICES_KNOWN];
	struct statfs fs;

	if (!known->known || known->device != device) {
		*known = (struct device){.device = device, .closed = true};
		if (fd < 0 || fstatfs(fd, &fs) < 0)
			return true;
		known->closed = false;
		for (size_t i = 0; i < sizeof(closed_types) / sizeof(closed_types[0]); i++)
			known->closed |= (uint32_t)fs.f_type == closed_types[i];
		known->proc = (uint32_t)fs.f_type == closed_types[0];
		known->known = true;
	}
	*proc = known->proc;
	return known->closed;
}

static bool is_closed(struct vessel *vessel, int fd, const struct stat *info)
{
	char link[64], path[PATH_BYTES];
	bool proc = false;

	if (!is_closed_type(vessel, fd, info->st_dev, &proc))
		return false;
	if (!proc)
		return true;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = 0;
	for (size_t i = 0; i < sizeof(open_proc) / sizeof(open_proc[0]); i++) {
		size_t length = strlen(open_proc[i]);
		bool folder = open_proc[i][length - 1] == '/';
		if (folder ? !strncmp(path, open_proc[i], length) : !strcmp(path, open_proc[i]))
			return false;
	}
	return true;
}

/* The rest of the path behind /proc/self/ or its like, or NULL. */
static const char *own_part(const struct vessel *vessel, const char *path)
{
	char pid[32], tid[48];

	if (strncmp(path, "/proc/", 6))
		return NULL;
	int n = snprintf(pid, sizeof(pid), "/proc/%d/", vessel->record.pid);
	int m = snprintf(tid, sizeof(tid), "/proc/self/task/%d/", vessel->record.tid);

	if (!strncmp(path, tid, (size_t)m))
		return path + m;
	if (!strncmp(path, pid, (size_t)n))
		return path + n;
	if (!strncmp(path, "/proc/self/", 11))
		return path + 11;
	if (!strncmp(path, "/proc/thread-self/", 18))
		return path + 18;
	return NULL;
}

/* The directory that AT_FDCWD means; opened at its first use. */
static int directory(struct vessel *vessel)
{
	struct desk *desk = &vessel->desk;

	if (desk->directory < 0) {
		int fd = open(desk->cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		struct opened *file = desk_open(desk, fd, OPENED_PATH, O_PATH);
		if (!file) {
			close(fd);
			return -EMFILE;
		}
		desk->directory = (int16_t)(file - desk->files);
	}
	return desk->files[desk->directory].fd;
}

/* The descriptor of ours that a path begins at, AT_FDCWD for an absolute one; or what is wrong. */
static int start_of(struct vessel *vessel, const struct system_call *call, int64_t base, const char *path,
		    uint64_t resolve, int *start)
{
	int from = AT_FDCWD;

	if (path[0] != '/' && (int)base == AT_FDCWD) {
		from = directory(vessel);
		if (from < 0)
			return from;
	} else if (path[0] != '/' || (resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT))) {
		struct opened *file = desk_find(&vessel->desk, (int)base);
		if (!file)
			return (int)answer_bad_descriptor(vessel, call, (int)base);
		if (file->kind != OPENED_DIRECTORY && file->kind != OPENED_PATH)
			return -ENOTDIR;
		from = file->fd;
	}
	*start = from;
	return 0;
}

static int look_up(struct vessel *vessel, const struct system_call *call, int64_t base, const char *path,
		   uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = resolve | RESOLVE_NO_MAGICLINKS};
	int from, rc = start_of(vessel, call, base, path, resolve, &from);

	if (rc < 0)
		return rc;
	int fd = (int)syscall(SYS_openat2, from, path, &how, sizeof(how));
	return fd >= 0 ? fd : -errno;
}

static bool is_plain(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t address,
		     char *path, int *start)
{
	if (!vessel->policy.read_files || user_load_string(vessel->pager, address, path, PATH_BYTES) <= 0)
		return false;
	if (strstr(path, "proc") || !strncmp(path, "/dev/", 5) || (path[0] != '/' && base != AT_FDCWD))
		return false;
	return start_of(vessel, call, base, path, 0, start) == 0;
}

/* What a path stands for.  0, a refusal that is noted, or the error that the program is to see. */
static int find(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t address,
		uint64_t flags, uint64_t resolve, struct found *found)
{
	char path[PATH_BYTES];
	int rc = user_load_string(vessel->pager, address, path, sizeof(path));

	*found = (struct found){.fd = -1};
	if (rc < 0)
		return rc;
	if (!vessel->policy.read_files)
		return (int)policy_note_refusal(vessel, call, EACCES);
	const char *own = own_part(vessel, path);
	if (own && vessel->own_file && (found->fd = vessel->own_file(vessel->own_context, own)) >= 0) {
		found->own = true;
		return fstat(found->fd, &found->info) < 0 ? -EACCES : 0;
	}
	if (own && !strcmp(own, "exe"))
		found->fd = look_up(vessel, call, AT_FDCWD, vessel->record.executable, flags, resolve);
	else
		found->fd = own ? -EACCES : look_up(vessel, call, base, path, flags, resolve);
	if (found->fd >= 0 &&
	    (fstat(found->fd, &found->info) < 0 || is_closed(vessel, found->fd, &found->info))) {
		close(found->fd);
		found->fd = -EACCES;
		own = path;
	}
	if (found->fd == -ELOOP && !strncmp(path, "/proc/", 6)) /* a magic link */
		found->fd = -EACCES;
	if (found->fd == -EACCES && (own || !strncmp(path, "/proc/", 6)))
		policy_note_refusal(vessel, call, EACCES);
	return found->fd < 0 ? found->fd : 0;
}

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
	struct opened *file = desk_open(&vessel->desk, fd, kind, (uint32_t)flags & ~(uint32_t)O_CLOEXEC);
	int number = file ? desk_install(&vessel->desk, &vessel->record, file, 0, flags & O_CLOEXEC) : -EMFILE;

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
		policy_note_refusal(vessel, call, EACCES);
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
		return policy_note_refusal(vessel, call, vessel->policy.read_files ? EROFS : EACCES);
	int rc = find(vessel, call, base, path, flags & (O_NOFOLLOW | O_DIRECTORY), resolve, &found);
	if (rc == -ENOENT && (flags & O_CREAT))
		return policy_note_refusal(vessel, call, EROFS);
	if (rc < 0)
		return rc;
	if ((flags & O_CREAT) && (flags & O_EXCL)) {
		close(found.fd);
		return -EEXIST;
	}
	int64_t number = open_found(vessel, call, found, flags);
	if (number >= 0)
		vessel_note_opened(vessel, call, path);
	return number;
}

static int64_t openat2_(struct vessel *vessel, const struct system_call *call)
{
	struct open_how how;

	if (call->args[3] < sizeof(how))
		return -EINVAL;
	if (user_load(vessel->pager, call->args[2], &how, sizeof(how)) < 0)
		return -EFAULT;
	if (how.resolve & ~(uint64_t)RESOLVE_KNOWN)
		return -EINVAL;
	return open_(vessel, call, (int)call->args[0], call->args[1], how.flags, how.resolve);
}

/* For stat and its like: `at` flags, the descriptor itself where the path is empty. */
static int find_at(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		   uint64_t at, struct found *found)
{
	char first = 0;
	bool nothing = (at & AT_EMPTY_PATH) &&
		       (!path || (user_load(vessel->pager, path, &first, 1) == 0 && !first));

	if (nothing && (int)base != AT_FDCWD) {
		struct opened *file = desk_find(&vessel->desk, (int)base);
		*found = (struct found){.fd = file ? file->fd : -1, .borrowed = true};
		if (!file)
			return (int)answer_bad_descriptor(vessel, call, (int)base);
		if (file->fd < 0)
			made_up(file->kind, &found->info);
		else if (fstat(file->fd, &found->info) < 0)
			return -EBADF;
		return file->kind;
	}
	int rc = find(vessel, call, base, path, at & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0, 0, found);
	return rc < 0 ? rc : OPENED_FILE;
}

/* What stands in for a file that the server has no descriptor of. */
static void made_up(int kind, struct stat *info)
{
	*info = (struct stat){.st_nlink = 1, .st_blksize = 4096};
	if (kind == OPENED_OUTPUT)
		info->st_mode = S_IFIFO | 0600;
	else if (kind == OPENED_SOCKET)
		info->st_mode = S_IFSOCK | 0777;
	else {
		info->st_mode = S_IFCHR | 0666;
		info->st_rdev = 0x103; /* /dev/null */
	}
}

static int64_t stat_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		     uint64_t to, uint64_t at)
{
	struct found found;
	char name[PATH_BYTES];
	bool proc;
	int start;

	if (path && is_plain(vessel, call, base, path, name, &start) &&
	    fstatat(start, name, &found.info, (int)at & AT_SYMLINK_NOFOLLOW) == 0 &&
	    !is_closed_type(vessel, -1, found.info.st_dev, &proc))
		return user_store(vessel->pager, to, &found.info, sizeof(found.info));
	int rc = find_at(vessel, call, base, path, at, &found);
	if (rc < 0)
		return rc;
	release(&found);
	return user_store(vessel->pager, to, &found.info, sizeof(found.info));
}

static int64_t statx_(struct vessel *vessel, const struct system_call *call)
{
	struct found found;
	union { /* struct statx; its first fields where it is made up */
		uint8_t bytes[256];
		struct statx named;
	} out = {{0}};
	int kind = find_at(vessel, call, (int)call->args[0], call->args[1], call->args[2], &found), rc = 0;

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
		release(&found);
	}
	return rc < 0 ? rc : user_store(vessel->pager, call->args[4], &out, sizeof(out));
}

static int64_t access_(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path,
		       uint64_t mode, uint64_t at)
{
	struct found found;
	char name[PATH_BYTES];
	int kind, start;

	if (mode & ~7ul)
		return -EINVAL;
	if (is_plain(vessel, call, base, path, name, &start)) {
		long how = at & (AT_EACCESS | AT_SYMLINK_NOFOLLOW);
		if (syscall(SYS_faccessat2, start, name, (int)mode & ~W_OK, how) < 0)
			return -errno;
		return mode & W_OK ? -EROFS : 0;
	}
	kind = find_at(vessel, call, base, path, at, &found);
	if (kind < 0)
		return kind;
	int rc = 0;
	if (found.fd >= 0 && !found.own) {
		if (syscall(SYS_faccessat2, found.fd, "", (int)mode & ~W_OK, AT_EMPTY_PATH | (at & AT_EACCESS)) < 0)
			rc = -errno;
	}
	release(&found);
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
	const char *own = own_part(vessel, text);
	if (own && !strcmp(own, "exe") && vessel->policy.read_files) {
		len = (ssize_t)strlen(vessel->record.executable);
		memcpy(text, vessel->record.executable, (size_t)len);
	} else if (own && !strcmp(own, "cwd") && vessel->policy.read_files) {
		len = (ssize_t)strlen(vessel->desk.cwd);
		memcpy(text, vessel->desk.cwd, (size_t)len);
	} else {
		rc = find_at(vessel, call, base, path, AT_SYMLINK_NOFOLLOW | (rc ? 0 : AT_EMPTY_PATH), &found);
		if (rc < 0)
			return rc;
		len = found.fd >= 0 ? readlinkat(found.fd, "", text, sizeof(text)) : -1;
		if (len < 0)
			len = found.fd >= 0 && !found.own ? -errno : -EINVAL;
		release(&found);
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
	int rc = find_at(vessel, call, AT_FDCWD, call->args[0], 0, &found);

	if (rc < 0)
		return rc;
	rc = fstatfs(found.fd, &info) < 0 ? -errno : 0;
	release(&found);
	return rc < 0 ? rc : user_store(vessel->pager, call->args[1], &info, sizeof(info));
}

static int64_t chdir_(struct vessel *vessel, const struct system_call *call)
{
	struct found found;
	struct desk *desk = &vessel->desk;
	char link[64], path[PATH_BYTES];
	int rc = find(vessel, call, AT_FDCWD, call->args[0], O_DIRECTORY, 0, &found);

	if (rc < 0)
		return rc;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", found.fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (found.own || len < 0 || syscall(SYS_faccessat2, found.fd, "", X_OK, AT_EMPTY_PATH) < 0) {
		close(found.fd);
		return found.own ? -ENOTDIR : -EACCES;
	}
	path[len] = 0;
	struct opened *file = desk_open(desk, found.fd, OPENED_PATH, O_PATH);
	if (!file) {
		close(found.fd);
		return -EMFILE;
	}
	if (desk->directory >= 0)
		desk_release(desk, vessel_saved_desk(vessel), &desk->files[desk->directory]);
	desk->directory = (int16_t)(file - desk->files);
	memcpy(desk->cwd, path, (size_t)len + 1);
	return 0;
}

static int64_t getcwd_(struct vessel *vessel, const struct system_call *call)
{
	size_t len = strlen(vessel->desk.cwd) + 1;

	if (call->args[1] < len)
		return -ERANGE;
	int64_t rc = user_store(vessel->pager, call->args[0], vessel->desk.cwd, len);
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
