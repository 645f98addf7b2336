/* cpu.h - this machine's XSAVE layout (Intel SDM vol. 1, 13.2; AMD APM vol. 3, CPUID Fn0000_000D). */
#ifndef GDB_UFFD_CPU_H
#define GDB_UFFD_CPU_H

#include <stdint.h>

#include "kernel/python.h"

/* The offset and size of component `number` (2..62) in the standard format; -1: not here. */
PYTHON int cpu_xsave_component(int number, uint32_t *offset, uint32_t *size);
/* Components that the operating system has switched on (XCR0); 0 without XSAVE. */
PYTHON uint64_t cpu_xcr0(void);

#endif
