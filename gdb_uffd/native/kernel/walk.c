/* walk.c - symbolic links are followed by hand (path_resolution(7)), and each directory is looked at before a name is
 * looked up in it: in one of autofs the mere look makes the automounter fetch what has that name, over the network
 * (Documentation/filesystems/autofs.rst, "Mount Traps").  O_PATH without O_DIRECTORY sets off none at the last name. */
#define _GNU_SOURCE
#include "kernel/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "kernel/compat.h"

#define AUTOFS_MAGIC 0x187 /* <linux/magic.h> */
#define PROC_MAGIC 0x9fa0
#define LINKS_MAX 40 /* path_resolution(7): "the limit is 40" */

struct walker {
	int from, here; /* where it begins, and where it stands; descriptors */
	int depth;      /* below the start; for RESOLVE_BENEATH and RESOLVE_IN_ROOT */
	int links;
	uint64_t resolve;
	char rest[2 * PATH_BYTES]; /* of the path */
};

static bool is_of(int fd, uint32_t magic)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 || (uint32_t)fs.f_type == magic;
}

/* The text of mountinfo (proc_pid_mountinfo(5)): blanks and the like are octal. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++, to++) {
		*to = *text;
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		}
	}
	*to = 0;
}

/* Whether something is mounted at `name` in the directory, or below. */
static bool is_mounted(int directory, const char *name)
{
	char link[64], path[2 * PATH_BYTES], *line = NULL;
	size_t room = 0;
	bool found = false;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
	ssize_t len = readlink(link, path, PATH_BYTES);
	FILE *file = len > 0 ? fopen("/proc/thread-self/mountinfo", "re") : NULL;
	if (!file)
		return false;
	len += snprintf(path + len, sizeof(path) - (size_t)len, "/%s", name);
	while (!found && getline(&line, &room, file) > 0) {
		char *save = NULL, *field = strtok_r(line, " ", &save);
		for (int i = 0; field && i < 4; i++) /* the fifth field: the mount point */
			field = strtok_r(NULL, " ", &save);
		if (field) {
			unescape(field);
			found = !strncmp(field, path, (size_t)len) && (!field[len] || field[len] == '/');
		}
	}
	free(line);
	fclose(file);
	return found;
}

static int step_to(struct walker *walker, int fd)
{
	if (fd < 0)
		return -errno;
	if (walker->here != walker->from)
		close(walker->here);
	walker->here = fd;
	return 0;
}

/* Back to the start of an absolute path. */
static int begin_at_root(struct walker *walker)
{
	if (walker->resolve & RESOLVE_BENEATH)
		return -EXDEV;
	walker->depth = 0;
	if (!(walker->resolve & RESOLVE_IN_ROOT))
		return step_to(walker, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	return step_to(walker, fcntl(walker->from, F_DUPFD_CLOEXEC, 0));
}

/* The next name of the rest into `name`; false at the end.  A slash behind the last one is left: it asks for a
 * directory. */
static bool next_name(struct walker *walker, char *name, size_t room)
{
	size_t blank = strspn(walker->rest, "/"), len = strcspn(walker->rest + blank, "/");

	if (!len || len >= room)
		return false;
	memcpy(name, walker->rest + blank, len);
	name[len] = 0;
	memmove(walker->rest, walker->rest + blank + len, strlen(walker->rest + blank + len) + 1);
	return true;
}

/* `fd` is a symbolic link: what it says comes before the rest of the path. */
static int follow(struct walker *walker, int fd)
{
	char text[sizeof(walker->rest)];
	ssize_t len = readlinkat(fd, "", text, PATH_BYTES);

	if (walker->resolve & RESOLVE_NO_SYMLINKS || ++walker->links > LINKS_MAX)
		return -ELOOP;
	if (is_of(fd, PROC_MAGIC)) /* may be a magic one, and tells of us */
		return -EREMOTE;
	if (len <= 0)
		return len < 0 ? -errno : -ENOENT;
	if ((size_t)len + strlen(walker->rest) >= sizeof(text))
		return -ENAMETOOLONG;
	strcpy(text + len, walker->rest);
	strcpy(walker->rest, text);
	if (text[0] != '/')
		return 0;
	return walker->resolve & RESOLVE_NO_XDEV ? -EXDEV : begin_at_root(walker);
}

/* One step; `*fd` is of what `name` is, links not followed. */
static int look(struct walker *walker, const char *name, int *fd)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_NO_MAGICLINKS | (walker->resolve & RESOLVE_NO_XDEV)};
	bool up = !strcmp(name, "..");

	if (is_of(walker->here, AUTOFS_MAGIC) && !up && strcmp(name, ".") && !is_mounted(walker->here, name))
		return -EREMOTE;
	if (up && !walker->depth && (walker->resolve & RESOLVE_BENEATH))
		return -EXDEV;
	if (up && !walker->depth && (walker->resolve & RESOLVE_IN_ROOT))
		name = ".";
	*fd = (int)syscall(SYS_openat2, walker->here, name, &how, sizeof(how));
	return *fd < 0 ? -errno : 0;
}

static int go(struct walker *walker, uint64_t flags)
{
	char name[256]; /* NAME_MAX and its end */
	struct stat info = {.st_mode = S_IFDIR};
	int rc = 0;

	while (rc == 0 && next_name(walker, name, sizeof(name))) {
		int fd;
		bool last = !walker->rest[0];

		rc = look(walker, name, &fd);
		if (rc < 0)
			break;
		rc = fstat(fd, &info) < 0 ? -errno : 0;
		if (rc == 0 && S_ISLNK(info.st_mode) && !(last && (flags & O_NOFOLLOW))) {
			rc = follow(walker, fd);
			close(fd);
			info.st_mode = S_IFDIR;
			continue;
		}
		rc = rc < 0 ? rc : step_to(walker, fd);
		if (rc < 0)
			close(fd);
		else if (strcmp(name, "."))
			walker->depth += !strcmp(name, "..") ? -(walker->depth > 0) : 1;
	}
	if (rc == 0 && strspn(walker->rest, "/") < strlen(walker->rest))
		return -ENAMETOOLONG;
	if (rc == 0 && !S_ISDIR(info.st_mode) && (walker->rest[0] || (flags & O_DIRECTORY)))
		return -ENOTDIR;
	return rc;
}

int walk(int from, const char *path, uint64_t flags, uint64_t resolve)
{
	struct walker walker = {.from = from, .here = from, .resolve = resolve};
	int rc = 0;

	if (!path[0])
		return -ENOENT;
	if (strlen(path) >= PATH_BYTES)
		return -ENAMETOOLONG;
	strcpy(walker.rest, path);
	if (path[0] == '/')
		rc = begin_at_root(&walker);
	else
		rc = step_to(&walker, fcntl(from, F_DUPFD_CLOEXEC, 0));
	if (rc == 0)
		rc = go(&walker, flags);
	if (rc < 0 && walker.here != from)
		close(walker.here);
	return rc < 0 ? rc : walker.here;
}
