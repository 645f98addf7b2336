// Known values in the vector and mask registers, then an illegal instruction.
// usage: vector avx|avx512
#include <stdint.h>
#include <string.h>

static uint64_t pattern[32][8];

// Adds one to each of eight numbers, with instructions of AVX-512; the last of them.
uint64_t wide(uint64_t first)
{
	uint64_t numbers[8] = {first, 1, 2, 3, 4, 5, 6, first};

	__asm__ volatile("vmovdqu64 (%0), %%zmm5\n\t"
			 "vpternlogd $0xff, %%zmm6, %%zmm6, %%zmm6\n\t"
			 "vpsubq %%zmm6, %%zmm5, %%zmm5\n\t"
			 "vmovdqu64 %%zmm5, (%0)"
			 :
			 : "r"(numbers)
			 : "xmm5", "xmm6", "memory");
	return numbers[7];
}

// The same with the instructions that every x86-64 CPU has.
uint64_t narrow(uint64_t first)
{
	uint64_t numbers[2] = {1, first};

	__asm__ volatile("movdqu (%0), %%xmm5\n\t"
			 "pcmpeqd %%xmm6, %%xmm6\n\t"
			 "psubq %%xmm6, %%xmm5\n\t"
			 "movdqu %%xmm5, (%0)"
			 :
			 : "r"(numbers)
			 : "xmm5", "xmm6", "memory");
	return numbers[1];
}

int main(int argc, char **argv)
{
	for (int r = 0; r < 32; r++)
		for (int q = 0; q < 8; q++)
			pattern[r][q] = 0x1111111111111111ull * (uint64_t)(q + 1) + (uint64_t)r;
	if (argc > 1 && !strcmp(argv[1], "avx512"))
		__asm__ volatile("vmovdqu64 (%0), %%zmm0\n\t"
				 "vmovdqu64 64(%0), %%zmm1\n\t"
				 "vmovdqu64 960(%0), %%zmm15\n\t"
				 "vmovdqu64 1024(%0), %%zmm16\n\t"
				 "vmovdqu64 1984(%0), %%zmm31\n\t"
				 "movl $0x5a5a, %%eax\n\t"
				 "kmovw %%eax, %%k1\n\t"
				 "ud2"
				 :
				 : "r"(pattern)
				 : "eax", "memory");
	else
		__asm__ volatile("vmovdqu (%0), %%ymm0\n\t"
				 "vmovdqu 64(%0), %%ymm1\n\t"
				 "vmovdqu 960(%0), %%ymm15\n\t"
				 "fldpi\n\t"
				 "ud2"
				 :
				 : "r"(pattern)
				 : "memory");
	return 0;
}
