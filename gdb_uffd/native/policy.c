/* policy.c - the system calls that are decided here, not by the kernel: who the program is,
 * whom it may signal, what must not happen (exit, fork, exec), and every change of the layout,
 * so that the pager knows each mapping. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "layout.h"
#include "uffd.h"
#include "vessel.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#define X32_BIT 0x40000000u /* __X32_SYSCALL_BIT, <asm/unistd.h> */

/* Calls that leave nothing behind in the kernel: they run untraced.  All others stop here: some are
 * decided, and after the rest an undone call needs a new process (descriptors, handlers, timers). */
static const uint32_t harmless[] = {
	SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_preadv,
	SYS_stat, SYS_fstat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat,
	SYS_readlink, SYS_readlinkat, SYS_getcwd, SYS_getdents64,
	SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_sched_yield, SYS_mincore,
	SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_restart_syscall,
	SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
	SYS_time, SYS_times, SYS_getitimer, SYS_getcpu, SYS_getrandom, SYS_membarrier,
	SYS_uname, SYS_sysinfo, SYS_getrlimit, SYS_getrusage,
	SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getppid, SYS_getpgrp, SYS_getpgid,
	SYS_getsid, SYS_getgroups, SYS_getresuid, SYS_getresgid,
	SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_getaffinity,
};

/* futex(2) operations that wait; the low seven bits of the argument (FUTEX_CMD_MASK). */
static const uint32_t waiting[] = {FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_LOCK_PI, FUTEX_LOCK_PI2};

#define FUTEX_COMMAND 0x7f

/* A futex call that waits is traced; one that wakes is not. */
static size_t futex_filter(struct sock_filter *out)
{
	size_t n = 0, count = sizeof(waiting) / sizeof(waiting[0]);

	out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, (uint8_t)(2 * count + 3));
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]));
	out[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FUTEX_COMMAND);
	for (size_t i = 0; i < count; i++) {
		out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, waiting[i], 0, 1);
		out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	}
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return n;
}

/* BPF: another architecture or the x32 table: ENOSYS; harmless: allow; else: trace. */
size_t policy_filter(struct sock_fprog *program, size_t room)
{
	struct sock_filter *out = program->filter;
	size_t n = 0, listed = sizeof(harmless) / sizeof(harmless[0]);

	if (listed * 2 + 20 > room)
		return 0;
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	n += futex_filter(out + n);
	for (size_t i = 0; i < listed; i++) {
		out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, harmless[i], 0, 1);
		out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	program->len = (unsigned short)n;
	return n;
}

/* The vessel does not make the call; the program sees `result` (seccomp(2), "-1 skips it"). */
int policy_skip(struct vessel *vessel, struct user_regs_struct *regs, int64_t result)
{
	regs->orig_rax = (unsigned long)-1;
	regs->rax = (unsigned long)result;
	return vessel_set_registers(vessel, regs);
}

int policy_refuse(struct vessel *vessel, struct user_regs_struct *regs, int error)
{
	if (vessel->refused_count < REFUSED_MAX) {
		vessel->refused[vessel->refused_count] = (struct refused){
			.nr = (int64_t)regs->orig_rax,
			.args = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9},
			.error = error,
		};
	}
	vessel->refused_count++;
	return policy_skip(vessel, regs, -error);
}

/* Back before the instruction: whoever resumes here comes here again. */
static int stand_before(struct vessel *vessel, struct user_regs_struct *regs, struct run *run)
{
	regs->rax = regs->orig_rax;
	regs->orig_rax = (unsigned long)-1;
	regs->rip -= 2;
	run->pc = regs->rip;
	return vessel_set_registers(vessel, regs);
}

static int signal_number(const struct user_regs_struct *regs)
{
	bool third = regs->orig_rax == SYS_tgkill || regs->orig_rax == SYS_rt_tgsigqueueinfo;

	return (int)(third ? regs->rdx : regs->rsi);
}

/* A signal to itself goes to the vessel; to anybody else it is refused: the recorded PID may be
 * a live process by now. */
static int signal_self(struct vessel *vessel, struct user_regs_struct *regs, struct run *run)
{
	pid_t first = (pid_t)regs->rdi, second = (pid_t)regs->rsi;
	bool self;

	switch (regs->orig_rax) {
	case SYS_kill:
	case SYS_rt_sigqueueinfo:
		self = first == vessel->recorded_pid;
		break;
	case SYS_tkill:
		self = first == vessel->recorded_tid;
		break;
	default:
		self = first == vessel->recorded_pid && second == vessel->recorded_tid;
		break;
	}
	if (!self)
		return policy_refuse(vessel, regs, EPERM);
	if (signal_number(regs) == SIGKILL) {
		int rc = stand_before(vessel, regs, run);
		run->end = RUN_KILLING;
		return rc < 0 ? rc : 1;
	}
	/* The kernel leaves a call's argument registers alone, and so must we. */
	unsigned long rdi = regs->rdi, rsi = regs->rsi;
	int64_t result;
	vessel->kernel_changed = true; /* a pending signal */
	regs->rdi = (unsigned long)vessel->pid;
	if (regs->orig_rax == SYS_tgkill || regs->orig_rax == SYS_rt_tgsigqueueinfo)
		regs->rsi = (unsigned long)vessel->pid;
	int rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0)
		return rc;
	regs->rdi = rdi;
	regs->rsi = rsi;
	return vessel_set_registers(vessel, regs);
}

/* Calls that name a process: itself by its recorded PID is 0; another one is refused. */
static int about_self(struct vessel *vessel, struct user_regs_struct *regs)
{
	unsigned long rdi = regs->rdi;
	pid_t who = (pid_t)rdi;
	int64_t result;

	if (who && who != vessel->recorded_pid && who != vessel->recorded_tid)
		return policy_refuse(vessel, regs, EPERM);
	vessel->kernel_changed = true;
	regs->rdi = 0;
	int rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0)
		return rc;
	regs->rdi = rdi;
	return vessel_set_registers(vessel, regs);
}

/* ioctl(2) requests that only ask: what stdio wants to know of its descriptors. */
static bool asks_only(const struct user_regs_struct *regs)
{
	return regs->rsi == TCGETS || regs->rsi == TIOCGWINSZ || regs->rsi == FIONREAD;
}

/* A wait without a time limit on a value that stands: nobody else runs who could change it. */
static bool waits_for_ever(struct vessel *vessel, const struct user_regs_struct *regs)
{
	int command = (int)regs->rsi & FUTEX_COMMAND;
	uint32_t value;
	size_t done;

	if (regs->r10 || (regs->rdi & 3)) /* a time limit; EINVAL for an unaligned word */
		return false;
	if (pager_read(vessel->pager, regs->rdi, (uint8_t *)&value, sizeof(value), &done) < 0)
		return false; /* EFAULT is the kernel's to give */
	return command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET ? value == (uint32_t)regs->rdx :
								       value != 0;
}

int policy_system_call(struct vessel *vessel, struct run *run)
{
	struct user_regs_struct regs;
	int rc = vessel_get_registers(vessel, &regs);

	if (rc < 0)
		return rc;
	switch (regs.orig_rax) {
	case SYS_exit:
	case SYS_exit_group:
		run->end = RUN_EXITING;
		run->status = (int)regs.rdi & 0xff;
		rc = stand_before(vessel, &regs, run);
		return rc < 0 ? rc : 1;
	case SYS_futex:
		if (!waits_for_ever(vessel, &regs))
			return 0;
		run->end = RUN_WAITING;
		run->address = regs.rdi;
		rc = stand_before(vessel, &regs, run);
		return rc < 0 ? rc : 1;
	case SYS_fork:
	case SYS_vfork:
	case SYS_clone:
	case SYS_clone3:
		return policy_refuse(vessel, &regs, EAGAIN);
	case SYS_execve:
	case SYS_execveat:
	case SYS_ptrace:
	case SYS_process_vm_readv:
	case SYS_process_vm_writev:
	case SYS_userfaultfd:
	case SYS_pidfd_send_signal:
	case SYS_pidfd_open:
	case SYS_process_madvise:
	case SYS_process_mrelease:
	case SYS_setpriority:
	case SYS_ioprio_set:
	case SYS_kcmp:
	case SYS_migrate_pages:
	case SYS_move_pages:
		return policy_refuse(vessel, &regs, EPERM);
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
		return signal_self(vessel, &regs, run);
	case SYS_prlimit64:
	case SYS_sched_setparam:
	case SYS_sched_setscheduler:
	case SYS_sched_setaffinity:
	case SYS_sched_setattr:
		return about_self(vessel, &regs);
	case SYS_getpid:
		return policy_skip(vessel, &regs, vessel->recorded_pid);
	case SYS_gettid:
	case SYS_set_tid_address:
		return policy_skip(vessel, &regs, vessel->recorded_tid);
	case SYS_brk:
	case SYS_mmap:
	case SYS_munmap:
	case SYS_mremap:
	case SYS_mprotect:
	case SYS_madvise:
		return layout_system_call(vessel, &regs);
	case SYS_ioctl:
		vessel->kernel_changed |= !asks_only(&regs);
		return 0;
	default:
		vessel->kernel_changed = true;
		return 0;
	}
}
