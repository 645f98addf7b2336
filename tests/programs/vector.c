// Known values in the vector and mask registers, then an illegal instruction.
// usage: vector avx|avx512
#include <stdint.h>
#include <string.h>

static uint64_t pattern[32][8];

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
