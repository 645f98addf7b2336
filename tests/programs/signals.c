/* signals.c - signals that the program sends itself, and what they tell of their sender. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum way { KILL, RAISE, TGKILL, THREAD, QUEUE, ABORT };

siginfo_t seen; /* what the handler was told */
int handled;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	handled = number;
	seen = *info;
}

static void send_self(int number, enum way way)
{
	union sigval value = {.sival_int = 77};

	switch (way) {
	case KILL:
		kill(getpid(), number);
		break;
	case RAISE:
		raise(number);
		break;
	case TGKILL:
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
		break;
	case THREAD:
		pthread_kill(pthread_self(), number);
		break;
	case QUEUE:
		sigqueue(getpid(), number, value);
		break;
	case ABORT:
		abort();
	}
}

/* 1: the handler ran, and was told of this very process. */
static int from_self(int number, const siginfo_t *info)
{
	return info->si_signo == number && info->si_pid == getpid() && info->si_uid == getuid();
}

int handle(int packed) /* the signal, and 256 times the way */
{
	int number = packed & 255;
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	handled = 0;
	sigaction(number, &action, NULL);
	send_self(number, (enum way)(packed >> 8));
	return handled == number ? from_self(number, &seen) : -handled;
}

static sigset_t block(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return set;
}

int wait_for(int packed)
{
	int number = packed & 255;
	sigset_t set = block(number);
	siginfo_t info = {0};

	send_self(number, (enum way)(packed >> 8));
	int got = sigwaitinfo(&set, &info);
	return got == number ? from_self(number, &info) : -errno;
}

int wait_plain(int number)
{
	sigset_t set = block(number);
	int got = 0;

	raise(number);
	sigwait(&set, &got);
	return got;
}

/* How often a signal of `number` could be read from a signalfd, as it should be. */
int read_records(int number)
{
	sigset_t set = block(number);
	struct signalfd_siginfo record;
	int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), count = 0;
	struct pollfd one = {fd, POLLIN, 0};

	if (fd < 0)
		return -errno;
	if (poll(&one, 1, 0) != 0 || read(fd, &record, sizeof(record)) != -1 || errno != EAGAIN)
		return -1000;
	for (int i = 0; i < 3; i++) {
		send_self(number, i == 1 ? QUEUE : KILL);
		if (poll(&one, 1, -1) != 1 || one.revents != POLLIN)
			return -2000;
		memset(&record, 0xff, sizeof(record));
		if (read(fd, &record, sizeof(record)) != (ssize_t)sizeof(record))
			return -errno;
		count += record.ssi_signo == (unsigned)number && record.ssi_pid == (unsigned)getpid() &&
			 record.ssi_uid == getuid() && record.ssi_int == (i == 1 ? 77 : 0);
	}
	return poll(&one, 1, 0) == 0 ? count : -3000;
}

int raise_two(void) /* the first waits, the second ends the call */
{
	block(SIGUSR1);
	kill(getpid(), SIGUSR1);
	kill(getpid() + 1, SIGUSR2); /* somebody else's: refused */
	kill(getpid(), SIGUSR2);
	return 1;
}

int unblock(void) /* what waits comes now */
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 7;
}

int main(void)
{
	free(malloc(100));
	abort();
}
