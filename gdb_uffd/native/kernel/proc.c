#define _GNU_SOURCE
#include "kernel/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int proc_open(pid_t pid, const char *name, int flags, struct error *error)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? fail(error, errno, "%s", path) : fd;
}
