/* arch_x86_64.h - see arch.h.  Sources: psABI x86-64; Intel SDM; <sys/user.h>. */
#ifndef GDB_UFFD_ARCH_X86_64_H
#define GDB_UFFD_ARCH_X86_64_H

#include <elf.h>
#include <linux/audit.h>
#include <sys/syscall.h>
#include <sys/user.h>

struct registers {
	struct user_regs_struct user;
};

#define PC(r) ((r)->user.rip)
#define SP(r) ((r)->user.rsp)
#define NUMBER(r) ((r)->user.orig_rax)
#define RESULT(r) ((r)->user.rax)
#define ARGUMENT(r, n) ((r)->user.ARGUMENT_##n) /* psABI, A.2.1 */
#define ARGUMENT_0 rdi
#define ARGUMENT_1 rsi
#define ARGUMENT_2 rdx
#define ARGUMENT_3 r10
#define ARGUMENT_4 r8
#define ARGUMENT_5 r9

#define ARCH_MACHINE EM_X86_64
#define ARCH_AUDIT AUDIT_ARCH_X86_64
#define ARCH_OTHER_TABLE TABLE_I386
#define ARCH_X32_BIT 0x40000000u           /* __X32_SYSCALL_BIT, <asm/unistd.h> */
#define ARCH_VSYSCALL 0xffffffffff600000ul /* a page that nobody can map */

#define CALL_STOP_IS_WHOLE 1
#define VDSO_ROOM 0 /* signal handlers return through code of the C library */
#define WATCHPOINTS_LOOK_BACK 1
#define BREAKPOINT_BYTES 1
#define BREAKPOINT_SKIPS 1 /* the program counter is behind it when it was hit */
#define BREAKPOINT_CODE {0xcc}
#define LONGEST_INSTRUCTION 15 /* Intel SDM vol. 2, 2.3.11 */
#define LONGEST_CALL 7
#define LONGEST_STUB 16
#define ARCH_UNWINDS 1 /* PYTHON */
#define ARCH_SAVED 0xf048u /* rbx, rbp, r12-r15 (psABI, figures 3.4 and 3.36) */

#endif
