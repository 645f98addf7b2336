/* The benchmarks' inferior: a short call that writes a few pages, and calls that touch many. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGES 16384l

struct node {
	int value;
	struct node *next;
} *head;

int counter = 1041;
char big[PAGES * 4096] = {1};

int push(int value)
{
	struct node *node = malloc(sizeof(*node));

	node->value = value;
	node->next = head;
	head = node;
	return ++counter;
}

/* Reads one byte of each of the first `pages` pages. */
long touch(long pages)
{
	long sum = 0;

	for (long i = 0; i < pages; i++)
		sum += ((volatile char *)big)[i * 4096];
	return sum;
}

/* Writes one byte of each. */
long dirty(long pages)
{
	for (long i = 0; i < pages; i++)
		((volatile char *)big)[i * 4096 + 8]++;
	return pages;
}

static long files(void) /* four system calls */
{
	char bytes[64];
	int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	struct stat info;
	long got = fstat(fd, &info) + read(fd, bytes, sizeof(bytes));

	close(fd);
	return got;
}

static long memory(void) /* two */
{
	void *at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return munmap(at, 1 << 16);
}

static long signals(void) /* two */
{
	sigset_t one, before;

	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	sigprocmask(SIG_BLOCK, &one, &before);
	return sigprocmask(SIG_SETMASK, &before, NULL);
}

/* About `times` system calls of a kind; 'm': of all kinds. */
long ask(int kind, long times)
{
	static const char each[] = "pctwofgr";
	struct timespec now;
	struct stat info;
	static int word;
	long sum = 0;

	while (times > 0) {
		int what = kind == 'm' ? each[times % 8] : kind;
		times--;
		switch (what) {
		case 'p':
			sum += syscall(SYS_getppid);
			break;
		case 'c':
			sum += syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
			break;
		case 't':
			sum += stat("/etc/passwd", &info);
			break;
		case 'w':
			sum += write(1, ".", 1);
			break;
		case 'o':
			times -= 3;
			sum += files();
			break;
		case 'f':
			sum += syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
			break;
		case 'g':
			times--;
			sum += signals();
			break;
		case 'r':
			times--;
			sum += memory();
			break;
		}
	}
	return sum;
}

__attribute__((noinline)) void ready(void)
{
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	(void)argv;
	memset(big, 1, sizeof(big));
	push(1);
	push(2);
	ready();
	if (argc == 1)
		raise(SIGABRT);
	return 0;
}
