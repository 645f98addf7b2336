/* failing.c - preloaded: ioctl(2) or poll(2) fails where FAIL says, "ioctl REQUEST ERRNO" or "poll 0 ERRNO", from
 * when the file that FAIL_FROM names exists until it is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int fails(const char *name, unsigned long request)
{
	char which[16];
	unsigned long wanted;
	int error;
	const char *what = getenv("FAIL"), *from = getenv("FAIL_FROM");

	if (!what || !from || sscanf(what, "%15s %lx %d", which, &wanted, &error) != 3 || strcmp(which, name) ||
	    wanted != request || access(from, F_OK) < 0)
		return 0;
	errno = error;
	return 1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;

	va_start(rest, request);
	void *argument = va_arg(rest, void *);
	va_end(rest);
	return fails("ioctl", request) ? -1 : (int)syscall(SYS_ioctl, fd, request, argument);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	struct timespec time = {timeout / 1000, timeout % 1000 * 1000000l};

	if (timeout < 0 && fails("poll", 0))
		return -1;
	return (int)syscall(SYS_ppoll, fds, count, timeout < 0 ? NULL : &time, NULL, 0);
}
