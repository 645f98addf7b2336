/* The recording benchmarks' inferior: MIB of memory, of which 1 % is written between two stops; and
 * a loop that does nothing but write. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state = 88172645463325252ull;
double spent_ms;
char *memory;
size_t pages;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

__attribute__((noinline)) void ready(void)
{
	__asm__ volatile("" ::: "memory");
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Writes words all over 64 MiB, `rounds` times. */
static void write_much(int rounds)
{
	volatile uint64_t *words = (volatile uint64_t *)memory;
	double began = now_ms();

	for (int i = 0; i < rounds; i++)
		for (size_t at = 0; at < (64ul << 20) / 8; at += 8)
			words[at] += (uint64_t)i;
	spent_ms = now_ms() - began;
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? (size_t)atol(argv[1]) : 64;
	int rounds = argc > 2 ? atoi(argv[2]) : 0;

	pages = mib << 8;
	memory = malloc(pages * 4096);
	if (!memory)
		return 1;
	for (size_t i = 0; i < pages * 512; i += 8)
		((uint64_t *)memory)[i] = next();
	for (;;) {
		ready();
		if (rounds)
			write_much(rounds);
		else
			for (size_t i = 0; i < pages / 100; i++)
				((uint64_t *)memory)[next() % pages * 512 + next() % 512] = next();
	}
}
