#include "kernel/cpu.h"

#ifdef __x86_64__
#include <cpuid.h>

int cpu_xsave_component(int number, uint32_t *offset, uint32_t *size)
{
	uint32_t a, b, c, d;

	if (number < 2 || number > 62 || !__get_cpuid_count(0xd, (unsigned)number, &a, &b, &c, &d) || !a)
		return -1;
	*size = a;
	*offset = b;
	return 0;
}

uint64_t cpu_xcr0(void)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return (uint64_t)d << 32 | a;
}

#else /* no other processor has such an area */

int cpu_xsave_component(int number, uint32_t *offset, uint32_t *size)
{
	(void)number;
	*offset = *size = 0;
	return -1;
}

uint64_t cpu_xcr0(void)
{
	return 0;
}

#endif
