/* Does to its own memory what it is told on stdin: four 64-bit words a command, one word back.
 * A test drives it and compares what was recorded of it with what it held. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MMAP, MUNMAP, MREMAP, MADVISE, MPROTECT, FILL, FORK, BRK, STACK, READ, THREAD, MMAP_FD, UFFD };

static char data[3 * 4096] = "initialised";
static char zeroed[5 * 4096];

static void fill(volatile uint8_t *at, uint64_t len, uint64_t seed)
{
	for (uint64_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		at[i] = (uint8_t)(seed >> 56);
	}
}

static uint64_t touch(const volatile uint8_t *at, uint64_t len)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < len; i += 4096)
		sum += at[i];
	return sum;
}

/* Deep on the stack, so that it grows. */
static __attribute__((noinline)) uint64_t deep(uint64_t len, uint64_t seed)
{
	volatile uint8_t *frame = __builtin_alloca(len);

	fill(frame, len < 4096 ? len : 4096, seed);
	return (uint64_t)(uintptr_t)frame;
}

/* A child that writes everywhere: nothing of it may show in the parent. */
static uint64_t forked(uint64_t at, uint64_t len)
{
	pid_t pid = fork();

	if (pid == 0) {
		fill((uint8_t *)(uintptr_t)at, len, 99);
		_exit(0);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return (uint64_t)(int64_t)status;
}

/* Registers memory with a userfaultfd of its own, as garbage collectors and emulators do. */
static uint64_t own_userfaultfd(uint64_t at, uint64_t len)
{
	int fd = (int)syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {
		.range = {.start = at, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		return (uint64_t)-errno;
	return 0;
}

static void *sleeper(void *argument)
{
	(void)argument;
	pause();
	return NULL;
}

static uint64_t obey(const uint64_t *word)
{
	void *at = (void *)(uintptr_t)word[1];
	pthread_t thread;

	switch (word[0]) {
	case MMAP: /* address, length, prot | flags << 8 */
		return (uint64_t)(uintptr_t)mmap(at, word[2], (int)(word[3] & 7), (int)(word[3] >> 8), -1, 0);
	case MUNMAP:
		return (uint64_t)(int64_t)munmap(at, word[2]);
	case MREMAP: /* address, old length, new length; may move */
		return (uint64_t)(uintptr_t)mremap(at, word[2], word[3], MREMAP_MAYMOVE);
	case MADVISE:
		return (uint64_t)(int64_t)madvise(at, word[2], (int)word[3]);
	case MPROTECT:
		return (uint64_t)(int64_t)mprotect(at, word[2], (int)word[3]);
	case FILL:
		fill(at, word[2], word[3]);
		return 0;
	case FORK:
		return forked(word[1], word[2]);
	case BRK:
		return (uint64_t)(uintptr_t)sbrk((intptr_t)word[1]);
	case STACK:
		return deep(word[1], word[2]);
	case READ:
		return touch(at, word[2]);
	case THREAD:
		return (uint64_t)(int64_t)pthread_create(&thread, NULL, sleeper, NULL);
	case MMAP_FD: /* descriptor, length, prot | flags << 8 */
		return (uint64_t)(uintptr_t)mmap(NULL, word[2], (int)(word[3] & 7), (int)(word[3] >> 8),
						 (int)word[1], 0);
	case UFFD:
		return own_userfaultfd(word[1], word[2]);
	default:
		return ~0ull;
	}
}

int main(void)
{
	uint64_t word[4];
	uint64_t first[2] = {(uint64_t)(uintptr_t)data, (uint64_t)(uintptr_t)zeroed};

	if (write(1, first, sizeof(first)) != (ssize_t)sizeof(first))
		return 1;
	while (read(0, word, sizeof(word)) == (ssize_t)sizeof(word)) {
		uint64_t answer = obey(word);
		if (write(1, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
			return 1;
	}
	return 0;
}
