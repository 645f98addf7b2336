/* lookup.c - the server looks a path up itself and holds what it found by an O_PATH descriptor: whatever
 * happens to the name afterwards, it is that very thing that is looked at and opened.  No magic link is
 * followed, no automounter asked (walk.c), and nothing of /proc that belongs to a process is found. */
#define _GNU_SOURCE
#include "syscalls/lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "process/user.h"
#include "syscalls/refuse.h"

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
	0x62656572, /* sysfs: attributes of devices, which reading can set off */
	0x187,      /* autofs */
};

/* Of /proc and /sys, what is no process's and can be read without an effect. */
static const char *const open_parts[] = {
	"/proc/cpuinfo", "/proc/meminfo", "/proc/stat",	      "/proc/version",
	"/proc/loadavg", "/proc/devices", "/proc/filesystems", "/proc/sys/",
	"/sys/devices/system/", "/sys/kernel/mm/",
};

void lookup_release(const struct found *found)
{
	if (found->fd >= 0 && !found->borrowed)
		close(found->fd);
}

static bool is_closed(int fd)
{
	struct statfs fs;
	char link[64], path[PATH_BYTES];
	bool closed = false;

	if (fstatfs(fd, &fs) < 0)
		return true;
	for (size_t i = 0; i < sizeof(closed_types) / sizeof(closed_types[0]); i++)
		closed |= (uint32_t)fs.f_type == closed_types[i];
	if (!closed)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = 0;
	for (size_t i = 0; i < sizeof(open_parts) / sizeof(open_parts[0]); i++) {
		size_t length = strlen(open_parts[i]);
		bool folder = open_parts[i][length - 1] == '/';
		if (folder ? !strncmp(path, open_parts[i], length) : !strcmp(path, open_parts[i]))
			return false;
	}
	return true;
}

const char *lookup_own_part(const struct vessel *vessel, const char *path)
{
	char pid[32], tid[48];

	if (strncmp(path, "/proc/", 6))
		return NULL;
	int n = snprintf(pid, sizeof(pid), "/proc/%d/", vessel->identity.pid);
	int m = snprintf(tid, sizeof(tid), "/proc/self/task/%d/", vessel->identity.tid);

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
	struct kernel_state *state = &vessel->kernel_state;

	if (state->directory < 0) {
		int fd = walk(AT_FDCWD, state->cwd, O_DIRECTORY, 0);
		if (fd < 0)
			return fd;
		if (is_closed(fd)) { /* the recording named it, and may be made up */
			close(fd);
			return -EACCES;
		}
		struct opened *file = fd_table_open(state, fd, OPENED_PATH, O_PATH);
		if (!file) {
			close(fd);
			return -EMFILE;
		}
		state->directory = (int16_t)(file - state->files);
	}
	return state->files[state->directory].fd;
}

static int look_up(struct vessel *vessel, const struct system_call *call, int64_t base, const char *path,
		   uint64_t flags, uint64_t resolve)
{
	bool relative = path[0] != '/' || (resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT));
	int from = AT_FDCWD;

	if (relative && (int)base == AT_FDCWD) {
		from = directory(vessel);
		if (from < 0)
			return from;
	} else if (relative) {
		struct opened *file = fd_table_find(&vessel->kernel_state, (int)base);
		if (!file)
			return (int)refuse_descriptor(vessel, call, (int)base);
		if (file->kind != OPENED_DIRECTORY && file->kind != OPENED_PATH)
			return -ENOTDIR;
		from = file->fd;
	}
	return walk(from, path, flags, resolve);
}

int lookup(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t address,
	   uint64_t flags, uint64_t resolve, struct found *found)
{
	char path[PATH_BYTES];
	int rc = user_load_string(vessel->pager, address, path, sizeof(path));

	*found = (struct found){.fd = -1};
	if (rc < 0)
		return rc;
	if (!vessel->policy.read_files)
		return (int)refuse_note(vessel, call, EACCES);
	const char *own = lookup_own_part(vessel, path);
	if (own && vessel->own_file && (found->fd = vessel->own_file(vessel->own_context, own)) >= 0) {
		found->own = true;
		return fstat(found->fd, &found->info) < 0 ? -EACCES : 0;
	}
	if (own && !strcmp(own, "exe"))
		found->fd = look_up(vessel, call, AT_FDCWD, vessel->identity.executable, flags, resolve);
	else
		found->fd = own ? -EACCES : look_up(vessel, call, base, path, flags, resolve);
	if (found->fd >= 0 &&
	    (fstat(found->fd, &found->info) < 0 || is_closed(found->fd))) {
		close(found->fd);
		found->fd = -EACCES;
		own = path;
	}
	if (found->fd == -EREMOTE) {
		found->fd = -EACCES;
		own = path;
	}
	if (found->fd == -EACCES && (own || !strncmp(path, "/proc/", 6)))
		refuse_note(vessel, call, EACCES);
	return found->fd < 0 ? found->fd : 0;
}

/* What stands in for a file that the server has no descriptor of. */
static void made_up(int kind, struct stat *info)
{
	*info = (struct stat){.st_nlink = 1, .st_blksize = 4096};
	if (kind == OPENED_OUTPUT || kind == OPENED_PIPE)
		info->st_mode = S_IFIFO | 0600;
	else if (kind == OPENED_EVENT || kind == OPENED_SIGNALS || kind == OPENED_EPOLL || kind == OPENED_TIMER)
		info->st_mode = 0600; /* no type (fs/anon_inodes.c) */
	else if (kind == OPENED_SOCKET || kind == OPENED_PAIR)
		info->st_mode = S_IFSOCK | 0777;
	else {
		info->st_mode = S_IFCHR | 0666;
		info->st_rdev = 0x103; /* /dev/null */
	}
}

int lookup_at(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path, uint64_t at,
	      struct found *found)
{
	char first = 0;
	bool nothing = (at & AT_EMPTY_PATH) &&
		       (!path || (user_load(vessel->pager, path, &first, 1) == 0 && !first));

	if (nothing && (int)base != AT_FDCWD) {
		struct opened *file = fd_table_find(&vessel->kernel_state, (int)base);
		*found = (struct found){.fd = file ? file->fd : -1, .borrowed = true};
		if (!file)
			return (int)refuse_descriptor(vessel, call, (int)base);
		if (file->fd < 0)
			made_up(file->kind, &found->info);
		else if (fstat(file->fd, &found->info) < 0)
			return -EBADF;
		return file->kind;
	}
	int rc = lookup(vessel, call, base, path, at & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0, 0, found);
	return rc < 0 ? rc : OPENED_FILE;
}

