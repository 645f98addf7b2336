/* arch.h - what differs from processor to processor.  Each has a header with its registers and constants
 * and a source file with the functions below; nothing else here names a register.
 *
 * The headers define: struct registers, which begins with what Architecture.names names; PC, SP, NUMBER, RESULT and
 * ARGUMENT, which are lvalues; ARCH_MACHINE, ARCH_AUDIT, ARCH_OTHER_TABLE; where there is such, ARCH_X32_BIT and ARCH_VSYSCALL; CALL_STOP_IS_WHOLE: whether every register can be read and
 * set at a system call's exit; WATCHPOINTS_LOOK_BACK: whether they stop behind the access; BREAKPOINT_BYTES, BREAKPOINT_SKIPS, BREAKPOINT_CODE;
 * VDSO_ROOM: bytes kept for the vdso that the process is started with, 0: not needed;
 * LONGEST_INSTRUCTION, LONGEST_CALL, LONGEST_STUB; ARCH_UNWINDS: whether eh_frame.h is about it; ARCH_SAVED: the
 * registers that a function leaves as they were, a bit for each of DWARF's numbers; and the numbers of system calls
 * that the architecture never had. */
#ifndef GDB_UFFD_ARCH_H
#define GDB_UFFD_ARCH_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/python.h"

#if defined(__x86_64__)
#include "kernel/arch_x86_64.h"
#elif defined(__aarch64__)
#include "kernel/arch_aarch64.h"
#else
#error "gdb_uffd knows x86-64 and AArch64"
#endif

/* This machine's XSAVE area (Intel SDM vol. 1, 13.2; AMD APM vol. 3, CPUID Fn0000_000D): the offset and size of
 * component `number` (2..62) in the standard format; -1: not here. */
PYTHON int arch_xsave_component(int number, uint32_t *offset, uint32_t *size);
/* Components that the operating system has switched on (XCR0); 0 without XSAVE. */
PYTHON uint64_t arch_xcr0(void);

/* The end of what a program can map here, exclusive; behind it munmap(2) and PAGEMAP_SCAN fail. */
PYTHON uint64_t arch_user_end(void);

/* A stopped task's registers.  -errno.  NUMBER is the system call that it stands in, -1 for none. */
int arch_get_registers(pid_t pid, struct registers *regs);
int arch_set_registers(pid_t pid, const struct registers *regs);
int arch_get_pc(pid_t pid, uint64_t *pc);

/* At a system call's entry: it is not made, its caller sees `result`. */
void arch_skip_call(struct registers *regs, int64_t result);
/* ... it is not made; the task stands before the instruction again.  `stepped`: it was come to by a
 * single step. */
void arch_stand_before(struct registers *regs, bool stepped);
/* Behind a call that was made with other arguments: the program's own, the result stays. */
void arch_restore_arguments(struct registers *regs, const struct registers *own);
/* What becomes of a system call of this architecture alone. */
enum own_call {
	OWN_SKIPPED, /* `value` is what the program sees */
	OWN_STORED,  /* ... it sees 0, and `value` in the word at `address` */
	OWN_WRITES,  /* the kernel makes it, and may write a word at `address` */
	OWN_STAYS,   /* ... and is changed by it */
	OWN_REFUSED, /* it sees EINVAL */
};
int arch_own_call(struct registers *regs, uint64_t *address, uint64_t *value);

struct machine_code {
	const void *bytes;
	size_t len;
};

/* Machine code of ours, and how to enter it: at `code`, with a pointer to `table`.
 * The restorer makes the system calls of a table of struct restorer_call until its number is -1, then traps. */
extern const struct machine_code arch_restorer;
/* The trial's makes steps (trial.c), then traps. */
extern const struct machine_code arch_trial;
void arch_enter(struct registers *regs, uint64_t code, uint64_t table);

/* Whether this SIGTRAP is that of a single step. */
bool arch_is_step(const siginfo_t *info);

enum arch_call { CALL_NONE = 0, CALL_DIRECT, CALL_INDIRECT };

/* What the instruction is that ends right before `code` + LONGEST_CALL, which lies at `behind`; `target` out: where
 * a direct call leads. */
int arch_call_before(const uint8_t *code, uint64_t behind, uint64_t *target);
/* The word through which the stub at `at` jumps (a PLT's entry); 0: it is none.  `code` has LONGEST_STUB bytes. */
uint64_t arch_stub_slot(const uint8_t *code, uint64_t at);
/* Whether it is the part of a stub that leads to the dynamic linker. */
bool arch_is_unbound(const uint8_t *code);
/* How far before the end of the code the last function begins that sets up a frame pointer, and has not left it; 0:
 * none. */
size_t arch_prologue_before(const uint8_t *code, size_t len);
/* Whether `len` bytes of a function's beginning set up a frame pointer; `depth` out: how far below that they leave
 * the stack pointer. */
bool arch_prologue(const uint8_t *code, size_t len, uint64_t *depth);
/* The length of an instruction that is made in many steps and may write in each; else 0.  `code` has
 * LONGEST_INSTRUCTION bytes, zeros where there are none. */
int arch_repeated(const uint8_t *code);
/* Whether the instruction stores only if nothing was interrupted since a load before it: a
 * single step always fails it. */
bool arch_stores_exclusively(const uint8_t *code);

#define BREAKPOINT ((const uint8_t[])BREAKPOINT_CODE)

/* The processor's own watchpoints and breakpoints. */
PYTHON enum debug_kind { DEBUG_EXECUTE = 0, DEBUG_WRITE = 1, DEBUG_READ = 2, DEBUG_ACCESS = 3 };

#define DEBUG_SLOTS 4 /* PYTHON */

PYTHON struct debug_slot {
	uint64_t address;
	uint32_t length; /* 1, 2, 4 or 8; the address is a multiple of it */
	uint32_t kind;   /* enum debug_kind */
};

/* Exactly these are on from now on, and none was hit.  -ENOSPC: too many. */
int arch_set_debug(pid_t pid, const struct debug_slot *slots, size_t count);
int arch_forget_hits(pid_t pid);
/* Bit i: slots[i] caused the stop that the task is in.  -errno. */
int arch_debug_hits(pid_t pid, const struct debug_slot *slots, size_t count);

#endif
