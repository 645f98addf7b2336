/* loop.c - an event loop's descriptors, which a core does not tell of: it wakes itself by them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

int event, pipes[2], pair[2], loop, null;

static int readable(int fd)
{
	struct pollfd one = {fd, POLLIN, 0};
	fd_set set;
	struct timeval none = {0, 0};

	FD_ZERO(&set);
	FD_SET(fd, &set);
	int got = poll(&one, 1, 0) == 1 && one.revents == POLLIN;
	int selected = select(fd + 1, &set, NULL, NULL, &none);
	return selected == got && FD_ISSET(fd, &set) == got ? got : -1;
}

long wake_event(long times) /* what is read back, and 1000 if nothing is left */
{
	uint64_t one = 1, got = 0;

	for (long i = 0; i < times; i++)
		if (write(event, &one, sizeof(one)) != sizeof(one))
			return -errno;
	if (!readable(event) || read(event, &got, sizeof(got)) != sizeof(got))
		return -1;
	return (long)got + (!readable(event) && read(event, &got, sizeof(got)) < 0 && errno == EAGAIN ? 1000 : 0);
}

long wake_pipe(long times)
{
	char bytes[64] = {0};

	for (long i = 0; i < times; i++)
		if (write(pipes[1], "!", 1) != 1)
			return -errno;
	if (!readable(pipes[0]))
		return -1;
	long got = read(pipes[0], bytes, sizeof(bytes));
	return bytes[0] == '!' && !readable(pipes[0]) ? got : -2;
}

long wake_pair(long times)
{
	char bytes[64];

	for (long i = 0; i < times; i++)
		if (send(pair[1], "", 1, 0) != 1)
			return -errno;
	return readable(pair[0]) ? recv(pair[0], bytes, sizeof(bytes), 0) : -1;
}

long no_wake(void) /* text for a file of another kind, which it is not */
{
	return write(event, "a line\n", 7) < 0 ? errno : 0;
}

long eight_letters(void)
{
	return write(pipes[1], "eight..\n", 8) < 0 ? errno : 0;
}

/* What a descriptor says of itself that nobody has written to: 0, or the line that is wrong. */
static long empty(int fd, int polled)
{
	char bytes[16];
	struct iovec parts[2] = {{bytes, 8}, {bytes + 8, 8}};
	struct pollfd one = {fd, POLLIN, 0};
	int left = 7;

	if (polled && poll(&one, 1, 0) != 0)
		return __LINE__;
	if (read(fd, bytes, sizeof(bytes)) != -1 || errno != EAGAIN)
		return __LINE__;
	if (readv(fd, parts, 2) != -1 || errno != EAGAIN)
		return __LINE__;
	if (!(fcntl(fd, F_GETFL) & O_NONBLOCK))
		return __LINE__;
	if (fcntl(fd, F_GETFD) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		return __LINE__;
	if (fd != event && (ioctl(fd, FIONREAD, &left) < 0 || left))
		return __LINE__;
	if (readable(fd) || read(fd, bytes, sizeof(bytes)) != -1 || errno != EAGAIN)
		return __LINE__;
	return fcntl(fd, F_SETFD, 0) < 0 ? __LINE__ : 0;
}

long read_event(long polled)
{
	uint64_t value;
	struct pollfd one = {event, POLLIN, 0};

	if (polled)
		poll(&one, 1, 0);
	return read(event, &value, sizeof(value)) < 0 ? -errno : (long)value;
}

long empty_event(long polled)
{
	return empty(event, (int)polled);
}

long empty_pipe(long polled)
{
	return empty(pipes[0], (int)polled);
}

long empty_pair(long polled)
{
	struct msghdr message = {0};
	char byte;
	struct iovec part = {&byte, 1};
	long wrong = polled ? empty(pair[0], 1) : 0;

	if (wrong || recv(pair[0], &byte, 1, 0) != -1 || errno != EAGAIN)
		return wrong ? wrong : __LINE__;
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	return recvmsg(pair[0], &message, 0) == -1 && errno == EAGAIN ? 0 : __LINE__;
}

long empty_then_woken(void)
{
	char bytes[8];

	for (int i = 0; i < 3; i++) {
		if (read(pipes[0], bytes, sizeof(bytes)) != -1 || errno != EAGAIN)
			return __LINE__;
		if (wake_event(3) != 1003 || wake_pipe(2) != 2)
			return __LINE__;
	}
	return 0;
}

long read_blocking(long how) /* one that it has made wait */
{
	char bytes[8];
	int no = 0;

	if (readable(event))
		return __LINE__;
	if (how ? ioctl(event, FIONBIO, &no) < 0 : fcntl(event, F_SETFL, fcntl(event, F_GETFL) & ~O_NONBLOCK) < 0)
		return __LINE__;
	return fcntl(event, F_GETFL) & O_NONBLOCK ? __LINE__ : read(event, bytes, sizeof(bytes));
}

long read_blocking_woken(void) /* the other end of what is written to */
{
	char bytes[8];

	if (readable(pipes[0]) || fcntl(pipes[0], F_SETFL, 0) < 0 || write(pipes[1], "!", 1) != 1)
		return __LINE__;
	if (!(fcntl(pipes[1], F_GETFL) & O_NONBLOCK) || (fcntl(pipes[0], F_GETFL) & O_NONBLOCK))
		return __LINE__;
	return read(pipes[0], bytes, sizeof(bytes)) == 1 ? read(pipes[0], bytes, sizeof(bytes)) : __LINE__;
}

long leave_loop(long woken) /* what the recorded epoll had, it lets go of */
{
	struct epoll_event in = {.events = EPOLLIN}, got;

	if (woken && wake_event(1) != 1001)
		return __LINE__;
	if (epoll_ctl(loop, EPOLL_CTL_MOD, event, &in) < 0 || epoll_wait(loop, &got, 1, 0) != 0)
		return __LINE__;
	if (epoll_ctl(loop, EPOLL_CTL_DEL, event, NULL) < 0)
		return __LINE__;
	int mine = eventfd(0, EFD_NONBLOCK);
	return epoll_ctl(loop, EPOLL_CTL_DEL, mine, NULL) < 0 && errno == ENOENT ? 0 : __LINE__;
}

long close_silent(void)
{
	char byte;

	if (readable(event) || close(event) < 0)
		return __LINE__;
	return read(event, &byte, 1) == -1 && errno == EBADF && close(event) < 0 ? 0 : __LINE__;
}

/* The loop's own turn: nothing that is known of is ready. */
long turn(long milliseconds)
{
	struct epoll_event events[4];

	return epoll_wait(loop, events, 4, (int)milliseconds);
}

/* A loop of the call's own: 0, or the line that is wrong. */
long new_loop(void)
{
	int mine = epoll_create1(EPOLL_CLOEXEC), counter = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), ends[2], both[2];
	struct epoll_event in = {.events = EPOLLIN, .data.u64 = 7}, edge = {.events = EPOLLIN | EPOLLET, .data.u64 = 8};
	struct epoll_event out[4];
	uint64_t two = 2, got;
	char bytes[16];

	if (mine < 0 || counter < 0 || pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
		return __LINE__;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, both) < 0)
		return __LINE__;
	if (epoll_ctl(mine, EPOLL_CTL_ADD, counter, &in) < 0 || epoll_ctl(mine, EPOLL_CTL_ADD, ends[0], &edge) < 0)
		return __LINE__;
	if (epoll_ctl(mine, EPOLL_CTL_ADD, counter, &in) == 0 || errno != EEXIST)
		return __LINE__;
	if (epoll_wait(mine, out, 4, 0) != 0)
		return __LINE__;
	if (write(counter, &two, 8) != 8 || write(ends[1], "abc", 3) != 3)
		return __LINE__;
	if (epoll_wait(mine, out, 4, -1) != 2 || out[0].data.u64 != 7 || out[1].data.u64 != 8)
		return __LINE__;
	if (epoll_wait(mine, out, 4, 0) != 1 || out[0].data.u64 != 7) /* the edge was told */
		return __LINE__;
	if (read(counter, &got, 8) != 8 || got != 2 || epoll_wait(mine, out, 4, 0) != 0)
		return __LINE__;
	if (write(ends[1], "d", 1) != 1 || epoll_wait(mine, out, 1, -1) != 1 || out[0].data.u64 != 8)
		return __LINE__;
	if (read(ends[0], bytes, 2) != 2 || read(ends[0], bytes + 2, 14) != 2 || memcmp(bytes, "abcd", 4))
		return __LINE__;
	struct iovec parts[2] = {{"xy", 2}, {"z", 1}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	if (sendmsg(both[0], &message, 0) != 3 || write(both[1], "back", 4) != 4)
		return __LINE__;
	if (read(both[1], bytes, 16) != 3 || memcmp(bytes, "xyz", 3) || recv(both[0], bytes, 16, 0) != 4)
		return __LINE__;
	if (read(both[0], bytes, 16) != -1 || errno != EAGAIN)
		return __LINE__;
	close(both[1]);
	if (read(both[0], bytes, 16) != 0)
		return __LINE__;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	sigprocmask(SIG_BLOCK, &set, NULL);
	close(ends[0]);
	if (write(ends[1], "e", 1) != -1 || errno != EPIPE)
		return __LINE__;
	if (epoll_ctl(mine, EPOLL_CTL_DEL, counter, NULL) < 0)
		return __LINE__;
	int often = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
	for (int i = 0; i < 3; i++)
		if (read(often, &got, 8) != 8 || got != 1)
			return __LINE__;
	return read(often, &got, 8) == -1 && errno == EAGAIN ? 0 : __LINE__;
}

long fill_pipe(void) /* a whole pipe's bytes; one more would block */
{
	static char bytes[1 << 17];
	int ends[2];

	if (pipe(ends) < 0)
		return -errno;
	return write(ends[1], bytes, sizeof(bytes));
}

long read_empty(void)
{
	int ends[2];
	char byte;

	return pipe(ends) < 0 ? -errno : read(ends[0], &byte, 1);
}

int main(void)
{
	struct epoll_event in = {.events = EPOLLIN};

	event = eventfd(0, EFD_NONBLOCK);
	loop = epoll_create1(0);
	null = open("/dev/null", O_RDWR); /* so that no end of a pipe has a wrong neighbour */
	if (pipe2(pipes, O_NONBLOCK) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return 1;
	epoll_ctl(loop, EPOLL_CTL_ADD, event, &in);
	free(malloc(100));
	abort();
}
