/* sparse.c - memory that was never touched, but for a page in every 64 MiB. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define STEP (1ul << 26)

unsigned long bytes = 1ul << 28;
char *big;

long sum(void)
{
	long s = 0;

	for (unsigned long i = 0; i < bytes; i += PAGE)
		s += big[i];
	return s;
}

long sum_down(void)
{
	long s = 0;

	for (unsigned long i = bytes; i; i -= PAGE)
		s += big[i - PAGE];
	return s;
}

/* Reads all of it and writes in some of the pages that were read, then in some that were not. */
long write_some(long pages)
{
	long s = sum();

	for (long i = 1; i <= pages; i++)
		big[i * 3 * PAGE + 8] = (char)i;
	for (long i = 1; i <= pages; i++)
		s += big[i * 3 * PAGE + 8] == (char)i;
	return s;
}

long fill(long from, long to) /* MiB */
{
	long s = sum();

	memset(big + (from << 20), 7, (unsigned long)(to - from) << 20);
	return s;
}

long read_through_kernel(void)
{
	return mprotect(big, PAGE, PROT_READ | PROT_WRITE) + (long)sum();
}

int main(void)
{
	big = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (unsigned long i = 0; i < bytes; i += STEP)
		big[i] = 1;
	abort();
}
