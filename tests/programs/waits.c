/* Waits in the kernel in the way that it is told to, and says how the wait ended: a debugger that
 * makes a system call of its own in the waiting thread must not be noticed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t word;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long wait_as(const char *how, int fd, double seconds)
{
	struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	sigset_t none;
	fd_set set;
	char byte;

	sigemptyset(&none);
	FD_ZERO(&set);
	FD_SET(fd, &set);
	if (!strcmp(how, "nanosleep"))
		return nanosleep(&time, NULL);
	if (!strcmp(how, "read"))
		return read(fd, &byte, 1);
	if (!strcmp(how, "poll"))
		return poll(&poll_fd, 1, (int)(seconds * 1000));
	if (!strcmp(how, "ppoll"))
		return ppoll(&poll_fd, 1, &time, &none);
	if (!strcmp(how, "pselect"))
		return pselect(fd + 1, &set, NULL, NULL, &time, &none);
	if (!strcmp(how, "futex"))
		return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, NULL, 0);
	if (!strcmp(how, "wait"))
		return waitpid(-1, NULL, 0) > 0 ? 0 : -1;
	abort();
}

int main(int argc, char **argv)
{
	double seconds = argc > 2 ? atof(argv[2]) : 1;
	int ends[2], fds = 0;

	if (argc < 2 || pipe(ends))
		return 2;
	if (!strcmp(argv[1], "wait") && fork() == 0) {
		char byte;
		_exit(read(0, &byte, 1) < 0);
	}
	puts("waiting");
	fflush(stdout);
	double began = now();
	long result = wait_as(argv[1], strcmp(argv[1], "read") ? ends[0] : 0, seconds);
	int failed = result < 0 ? errno : 0;
	double took = now() - began;
	for (int fd = 3; fd < 64; fd++)
		fds += fcntl(fd, F_GETFD) >= 0;
	printf("%s: %ld errno %d, %s, %d descriptors\n", argv[1], result, failed,
	       took < seconds ? "early" : "in time", fds);
	return 0;
}
