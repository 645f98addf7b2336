/* stops.c: what ends a run otherwise than by a trap, and what a breakpoint, a watchpoint or a caught
 * system call is to stop; then it aborts.  Its second thread waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int shared = 1, copy, handled;
volatile long wide[8];
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t ready;

static void handler(int signal)
{
	handled = signal;
}

int alarmed(void) // a signal that gdb passes without a stop
{
	raise(SIGALRM);
	return 4;
}

int handles(int signal)
{
	struct sigaction action = {.sa_handler = handler};

	handled = 0;
	sigaction(signal, &action, NULL);
	raise(signal);
	return handled;
}

int leave(int code)
{
	exit(code);
}

int end_thread(int code) // as the second of two ways to end
{
	return (int)syscall(SYS_exit, code);
}

int give_up(void) // leaves its caller's frames behind
{
	pthread_exit(NULL);
}

int lock(void)
{
	return pthread_mutex_lock(&held);
}

int spin(int n) // a line that is long under way
{
	while (n) shared++;
	return shared;
}

int count(int n)
{
	int sum = 0;

	for (int i = 0; i < n; i++) {
		copy = i;
		sum += copy & 1;
	}
	return sum;
}

int both(int n)
{
	for (int i = 0; i < n; i++) {
		copy = shared; /* read */
		shared++; /* read and written */
	}
	return shared;
}

int refill(void)
{
	for (int i = 0; i < 8; i++)
		wide[i] += i;
	return (int)wide[7];
}

int trapped(int n) // a breakpoint that the program has itself
{
#ifdef __x86_64__
	__asm__ volatile("own_trap: int3");
#else
	__asm__ volatile("own_trap: brk #0");
#endif
	return n + 1;
}

int split(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	return child < 0 ? -errno : waitpid(child, NULL, 0) == child;
}

int touch(const char *path) // opens a file to write, which is refused
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	return fd < 0 ? -errno : close(fd);
}

int peek(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY);
	ssize_t got = fd < 0 ? -errno : read(fd, text, sizeof(text));

	if (fd >= 0)
		close(fd);
	return (int)got;
}

static void *waiter(void *unused)
{
	pthread_barrier_wait(&ready);
	pause();
	return unused;
}

int main(void)
{
	pthread_t thread;

	pthread_barrier_init(&ready, NULL, 2);
	pthread_create(&thread, NULL, waiter, NULL);
	pthread_barrier_wait(&ready);
	pthread_mutex_lock(&held);
	while (usleep(1000) || count(3) != 1)
		;
	abort();
}
