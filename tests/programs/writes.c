// Writes to its globals in every way there is, in an order that it notes itself; then it crashes.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct item {
	int id;
	double weight;
	struct item *next;
	unsigned low : 3, high : 5;
	char name[12];
};

enum state { IDLE, BUSY = 5, DONE };

int counter = 41;
int beside; // on the same page
enum state state;
struct item table[4] = {{1, 1.5, 0, 1, 2, "first"}};
long large[20000]; // 40 pages
unsigned char bytes[8192];
__thread long own = 7;
struct item *head;
uint64_t mask;

// What was written, in order: for the tests to compare with.
struct note {
	void *at;
	uint64_t size, value;
} notes[4096];
int noted;

#define WRITE(place, what)                                                                        \
	do {                                                                                      \
		(place) = (what);                                                                 \
		notes[noted++] = (struct note){&(place), sizeof(place), (uint64_t)(place)};       \
	} while (0)

__attribute__((noinline)) void bump(int by)
{
	WRITE(counter, counter + by);
}

__attribute__((noinline)) int count(int times)
{
	for (int i = 0; i < times; i++) {
		bump(i + 1);
		beside++;
	}
	return counter;
}

__attribute__((noinline)) int same(void) // a write of what is there
{
	volatile int *place = &counter;

	*place = 41;
	*place = 42;
	*place = 42;
	return counter;
}

__attribute__((noinline)) int busy(int times) // only its neighbours
{
	for (int i = 0; i < times; i++)
		*(volatile int *)&beside += 1;
	counter = times;
	return counter;
}

__attribute__((noinline)) long spread(int step)
{
	for (int i = 0; i < 20000; i += step)
		WRITE(large[i], i + 1);
	return large[0];
}

__attribute__((noinline)) int fill(int value) // "rep stosb"
{
	void *to = bytes + 10;
	size_t count = 6000;

#ifdef __x86_64__
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
#else
	for (size_t i = 0; i < count; i++)
		((volatile char *)to)[i] = value;
#endif
	bytes[9] = 1;
	return bytes[10];
}

__attribute__((noinline)) int across(void) // one instruction, two pages of `large`
{
	char *edge = (char *)(((uintptr_t)large + 8191) & ~4095ul);

	*(volatile uint64_t *)(edge - 4) = 0x1122334455667788;
	return 1;
}

__attribute__((noinline)) int by_kernel(void) // a system call writes
{
	uint64_t all = ~0ull;

	mask = 1;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	mask = 2;
	return 0;
}

__attribute__((noinline)) int by_kernel_into_large(void)
{
	uint64_t all = ~0ull;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
	large[5000] = 1;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &large[6000], 8);
	large[7000] = 2;
	return (int)large[5000];
}

__attribute__((noinline)) int members(void)
{
	state = BUSY;
	table[1].id = 11;
	table[1].weight = 2.25;
	table[2].next = &table[1];
	table[3].low = 5;
	strcpy(table[0].name, "renamed");
	own++;
	state = DONE;
	return table[1].id;
}

__attribute__((noinline)) struct item *push(int id)
{
	struct item *fresh = calloc(1, sizeof *fresh);

	fresh->id = id;
	fresh->next = head;
	head = fresh;
	fresh->id += 100;
	return fresh;
}

__attribute__((noinline)) int different(void) // another value each time
{
	struct timespec now;
	int seed;

	syscall(SYS_getrandom, &seed, sizeof seed, 0);
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
	counter = seed;
	beside = (int)now.tv_nsec;
	return counter;
}

__attribute__((noinline)) int wanders(void) // a page of `large` by chance, with what it held
{
	static unsigned int seed;

	syscall(SYS_getrandom, &seed, sizeof seed, 0);
	large[seed % 39 * 512 + 300] = 0;
	seed = 0;
#ifdef __aarch64__
	__asm__ volatile("mov x1, #0; mov x2, #0; mov x3, #0; mov x8, #0; mov x9, #0"
			 ::: "x1", "x2", "x3", "x8", "x9");
#else
	__asm__ volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi; xor %%edi, %%edi"
			 ::: "rcx", "rdx", "rsi", "rdi", "cc");
#endif
	return 0;
}

__attribute__((noinline)) int forever(void)
{
	for (;;)
		(*(volatile int *)&counter)++;
	return 0;
}

__attribute__((noinline)) int idle(void)
{
	for (;;)
		beside++;
	return 0;
}

__attribute__((noinline)) int faults(void)
{
	counter = 1;
	*(volatile int *)8 = 2;
	counter = 3;
	return 0;
}

__attribute__((noinline)) int say(const char *text)
{
	counter++;
	printf("%s\n", text);
	fflush(stdout);
	return counter;
}

__attribute__((noinline)) int maps(void) // memory that is new
{
	int *fresh = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 4; i++)
		fresh[i * 1024] = i + 1;
	return fresh[1024];
}

static inline __attribute__((always_inline)) void set_beside(int value)
{
	beside = value;
}

__attribute__((noinline)) int inlines(int value) // a write before, in, and after an inlined call
{
	counter = 1;
	set_beside(value);
	counter = 2;
	return beside;
}

__attribute__((noinline)) int drops(void) // the kernel empties a page of `large`
{
	long *page = (long *)(((uintptr_t)large + 8191) & ~4095ul);

	*(volatile long *)page = 1;
	madvise(page, 4096, MADV_DONTNEED);
	page[1] = 2;
	return (int)page[0];
}

__attribute__((noinline)) int deep(int levels)
{
	if (levels)
		return deep(levels - 1) + 1;
	counter++;
	return 0;
}

__attribute__((noinline)) void checkpoint(void)
{
	__asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv)
{
#ifdef __aarch64__
	register int kept __asm__("x19") = argc;
#else
	register int kept __asm__("rbx") = argc;
#endif

	__asm__ volatile("" : "+r"(kept));
	push(1);
	checkpoint();
	__asm__ volatile("" ::"r"(kept));
	if (argc > 1 && !strcmp(argv[1], "abort"))
		abort();
	return 0;
}
