/* full.c - a process whose address space is taken, but for one hole of argv[1] KiB. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LOWEST 0x10000ul
#define HIGHEST 0x7ffffffff000ul

int counter = 41;

int bump(int by)
{
	return counter += by;
}

static void fill(uintptr_t from, uintptr_t to)
{
	int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

	if (from < to)
		mmap((void *)from, to - from, PROT_NONE, how, -1, 0);
}

int main(int argc, char **argv)
{
	static uintptr_t ends[1 << 12][2];
	uintptr_t hole = argc > 1 ? strtoul(argv[1], NULL, 10) << 10 : 0, from = LOWEST;
	int count = 0;
	FILE *file = fopen("/proc/self/maps", "r");

	while (count < 1 << 12 && fscanf(file, "%lx-%lx%*[^\n]", &ends[count][0], &ends[count][1]) == 2)
		count++;
	fclose(file);
	for (int i = 0; i < count && from < HIGHEST; i++) {
		uintptr_t to = ends[i][0] < HIGHEST ? ends[i][0] : HIGHEST;
		if (hole && to > from + (1ul << 40)) {
			fill(from, to - (1ul << 30));
			fill(to - (1ul << 30) + hole, to);
			hole = 0;
		} else {
			fill(from, to);
		}
		from = ends[i][1];
	}
	bump(0);
	abort();
}
