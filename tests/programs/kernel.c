/* kernel.c: functions that leave something in the kernel, or change the address space. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int counter = 41;
char page[3 * 4096] = "recorded";
double seen;
char *shared; /* two pages of a memfd: 2 everywhere */
char *moving; /* three pages: 3 everywhere */

long bump(void)
{
	return ++counter;
}

long read_counter(void)
{
	return counter;
}

long open_file(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static void ignore(int number)
{
	(void)number;
}

long install_handler(void) /* whether there was one before */
{
	return signal(SIGUSR1, ignore) != SIG_DFL;
}

long set_umask(void) /* the mask before */
{
	return (long)umask(0777);
}

long set_alarm(void) /* seconds left of the one before */
{
	return (long)alarm(100);
}

long block_usr2(void) /* whether it was blocked before */
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &old);
	return sigismember(&old, SIGUSR2);
}

long map_and_keep(void) /* a new mapping each time; the sum proves that it can be written */
{
	char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(at, 2, 1 << 20);
	return at[0] + at[(1 << 20) - 1] + ++counter;
}

long grow_and_drop(void)
{
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long sum = 0;

	at[0] = 5;
	at = mremap(at, 4096, 8 * 4096, MREMAP_MAYMOVE);
	at[7 * 4096] = 6;
	sum = at[0] * 100 + at[7 * 4096] * 10;
	madvise(at, 8 * 4096, MADV_DONTNEED);
	sum += at[0] + at[7 * 4096];
	munmap(at, 8 * 4096);
	return sum;
}

long drop_recorded(void) /* -EINVAL: the file's own page is not at hand */
{
	char *at = (char *)(((unsigned long)page + 4095) & ~4095ul);

	return madvise(at, 4096, MADV_DONTNEED) < 0 ? -errno : at[0];
}

long shared_and_huge(void) /* what was written to shared memory stays; large pages are as small ones */
{
	char *at = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *huge = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	long sum;

	at[0] = 1;
	at[4096] = 2;
	huge[5 * 4096] = 3;
	madvise(at, 2 * 4096, MADV_DONTNEED);
	sum = at[0] * 1000 + at[4096] * 100;
	madvise(at, 4096, MADV_REMOVE);
	return sum + at[0] * 10 + huge[5 * 4096];
}

long drop_shared(void) /* recorded: what lies in a memfd stays; MADV_REMOVE makes a hole in it */
{
	long sum = 0;

	if (madvise(shared, 2 * 4096, MADV_DONTNEED) < 0)
		return -errno;
	sum = shared[0] * 1000 + shared[4096] * 100;
	shared[0] = 5;
	if (madvise(shared, 4096, MADV_DONTNEED) < 0 || madvise(shared + 4096, 4096, MADV_REMOVE) < 0)
		return -errno;
	return sum + shared[0] * 10 + shared[4096];
}

long move_and_stay(void) /* the pages go, the old range stays, and is empty */
{
	char *to = mremap(moving, 3 * 4096, 3 * 4096, MREMAP_MAYMOVE | 4, 0); /* MREMAP_DONTUNMAP */
	long sum;

	if (to == MAP_FAILED)
		return -errno;
	sum = to[0] * 1000 + to[2 * 4096] * 100 + moving[0] + moving[2 * 4096];
	moving[4096] = 7;
	to[4096] = 2;
	return to == moving ? -1 : sum + moving[4096] * 10 + to[4096];
}

long move_new_and_stay(void) /* the same of memory of the call's own, to a place that it chose */
{
	char *at = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	at[0] = 3;
	at[4096] = 4;
	char *to = mremap(at, 2 * 4096, 2 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED | 4, at + 6 * 4096);
	if (to != at + 6 * 4096)
		return -errno;
	return to[0] * 1000 + to[4096] * 100 + at[0] + at[4096];
}

long move_as_it_must_not(long which) /* as the kernel has it */
{
	char *to = which == 0 ? mremap(moving, 3 * 4096, 2 * 4096, MREMAP_MAYMOVE | 4, 0) :
		   which == 1 ? mremap(moving, 4096, 4096, 4, 0) :
				mremap(moving, 0, 4096, MREMAP_MAYMOVE);

	return to == MAP_FAILED ? -errno : 0;
}

long stay_shared(void) /* what is shared stays there in both places, which is not to be had here */
{
	return mremap(shared, 4096, 4096, MREMAP_MAYMOVE | 4, 0) == MAP_FAILED ? -errno : 0;
}

long double_shared(void) /* a second mapping of the same */
{
	return mremap(shared, 0, 2 * 4096, MREMAP_MAYMOVE) == MAP_FAILED ? -errno : 0;
}

long heap_up_and_down(void)
{
	char *top = sbrk(0);

	if (sbrk(1 << 20) == (void *)-1)
		return -1;
	memset(top, 1, 1 << 20);
	sbrk(-(1 << 20));
	if (sbrk(1 << 20) == (void *)-1)
		return -2;
	return top[4096 * 8] + top[(1 << 20) - 1];
}

long signal_self_keeps_registers(void)
{
	long pid = getpid(), before = pid, result;

#ifdef __aarch64__
	register long number __asm__("x8") = 129, x0 __asm__("x0") = pid, x1 __asm__("x1") = 0;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(number), "r"(x1) : "memory");
	result = x0; /* the register of the first argument, too */
#else
	__asm__ volatile("syscall" : "=a"(result), "+D"(pid) : "0"(62l), "S"(0l) : "rcx", "r11", "memory");
#endif
	return result == 0 && pid == before;
}

long touch_vector(void)
{
#ifdef __aarch64__
	__asm__ volatile("fmov d7, %0" : : "r"(0x123456789l) : "v7");
#else
	__asm__ volatile("movq %0, %%xmm7" : : "r"(0x123456789l) : "xmm7");
#endif
	return 0;
}

long fill(long pages)
{
	char *at = malloc((size_t)pages * 4096);

	memset(at, 1, (size_t)pages * 4096);
	return at[0];
}

int main(void)
{
	int fd = memfd_create("shared", 0);

	if (fd < 0 || ftruncate(fd, 2 * 4096) < 0)
		return 1;
	shared = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(shared, 2, 2 * 4096);
	moving = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(moving, 3, 3 * 4096);
	free(malloc(64));
	abort();
}
