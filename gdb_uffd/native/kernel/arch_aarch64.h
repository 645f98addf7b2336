/* arch_aarch64.h - see arch.h.  Sources: Arm ARM (DDI 0487); <asm/ptrace.h>; Linux arch/arm64/kernel. */
#ifndef GDB_UFFD_ARCH_AARCH64_H
#define GDB_UFFD_ARCH_AARCH64_H

#include <elf.h>
#include <linux/audit.h>
#include <sys/syscall.h>
#include <sys/user.h>

struct registers {
	struct user_regs_struct user; /* x0-x30, sp, pc, pstate */
	uint64_t tls;                 /* TPIDR_EL0 */
	int64_t number;               /* NT_ARM_SYSTEM_CALL; x8 is only what its caller asked for */
};

#define PC(r) ((r)->user.pc)
#define SP(r) ((r)->user.sp)
#define NUMBER(r) ((r)->number)
#define RESULT(r) ((r)->user.regs[0])
#define ARGUMENT(r, n) ((r)->user.regs[n])

#define ARCH_MACHINE EM_AARCH64
#define ARCH_AUDIT AUDIT_ARCH_AARCH64
#define ARCH_OTHER_TABLE TABLE_ARM

#define CALL_STOP_IS_WHOLE 0 /* x7 tells entry from exit there, and is put back afterwards */
#define WATCHPOINTS_LOOK_BACK 0
#define VDSO_ROOM 0x10000ul /* signal handlers return through it (setup_return in signal.c) */
#define BREAKPOINT_BYTES 4
#define BREAKPOINT_SKIPS 0
#define BREAKPOINT_CODE {0x00, 0x00, 0x20, 0xd4} /* brk #0 */
#define LONGEST_INSTRUCTION 4
#define LONGEST_CALL 4
#define LONGEST_STUB 16
#define ARCH_UNWINDS 0 /* PYTHON; the caller of a leaf stands in the link register, which a fault does not tell */
#define ARCH_SAVED 0u

#ifndef NT_ARM_TLS
#define NT_ARM_TLS 0x401
#endif
#ifndef NT_ARM_SYSTEM_CALL
#define NT_ARM_SYSTEM_CALL 0x404
#endif

/* System calls that there are not here: numbers that nobody can ask for, so that what is said of them
 * elsewhere needs no exception. */
#define NEVER(n) (0xffffff00ul + (n))
#define SYS_access NEVER(0)
#define SYS_alarm NEVER(1)
#define SYS_arch_prctl NEVER(2)
#define SYS_dup2 NEVER(3)
#define SYS_getpgrp NEVER(4)
#define SYS_lstat NEVER(5)
#define SYS_open NEVER(6)
#define SYS_pause NEVER(7)
#define SYS_poll NEVER(8)
#define SYS_readlink NEVER(9)
#define SYS_select NEVER(10)
#define SYS_stat NEVER(11)
#define SYS_time NEVER(12)
#define SYS_pipe NEVER(13)
#define SYS_eventfd NEVER(14)
#define SYS_signalfd NEVER(15)
#define SYS_epoll_create NEVER(16)
#define SYS_epoll_wait NEVER(17)

#endif
