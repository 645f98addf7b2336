/* policy.c - the system calls that are decided here, not by the kernel: who the program is,
 * whom it may signal, what must not happen (exit, fork, exec), and every change of the layout,
 * so that the pager knows each mapping. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "layout.h"
#include "uffd.h"
#include "vessel.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#define X32_BIT 0x40000000u /* __X32_SYSCALL_BIT, <asm/unistd.h> */

static const uint32_t traced[] = {
	SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise,
	SYS_exit, SYS_exit_group,
	SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_execve, SYS_execveat,
	SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
	SYS_pidfd_send_signal,
	SYS_getpid, SYS_gettid, SYS_set_tid_address,
	SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_userfaultfd,
};

/* BPF: another architecture or the x32 table: ENOSYS; listed: trace; else: allow. */
size_t policy_filter(struct sock_fprog *program, size_t room)
{
	struct sock_filter *out = program->filter;
	size_t n = 0, listed = sizeof(traced) / sizeof(traced[0]);

	if (listed * 2 + 10 > room)
		return 0;
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	for (size_t i = 0; i < listed; i++) {
		out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, traced[i], 0, 1);
		out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	}
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program->len = (unsigned short)n;
	return n;
}

/* The vessel does not make the call; the program sees `result` (seccomp(2), "-1 skips it"). */
static int skip(struct vessel *vessel, struct user_regs_struct *regs, int64_t result)
{
	regs->orig_rax = (unsigned long)-1;
	regs->rax = (unsigned long)result;
	return vessel_set_registers(vessel, regs);
}

static int refuse(struct vessel *vessel, struct user_regs_struct *regs, int error)
{
	if (vessel->refused_count < REFUSED_MAX) {
		vessel->refused[vessel->refused_count] = (struct refused){
			.nr = (int64_t)regs->orig_rax,
			.args = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9},
			.error = error,
		};
	}
	vessel->refused_count++;
	return skip(vessel, regs, -error);
}

/* A signal to itself goes to the vessel; to anybody else it is refused: the recorded PID may be
 * a live process by now. */
static int signal_self(struct vessel *vessel, struct user_regs_struct *regs)
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
		return refuse(vessel, regs, EPERM);
	regs->rdi = (unsigned long)vessel->pid;
	if (regs->orig_rax == SYS_tgkill || regs->orig_rax == SYS_rt_tgsigqueueinfo)
		regs->rsi = (unsigned long)vessel->pid;
	return vessel_set_registers(vessel, regs);
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
		/* Back before the instruction: whoever resumes here comes here again. */
		run->status = (int)regs.rdi & 0xff;
		regs.rax = regs.orig_rax;
		regs.orig_rax = (unsigned long)-1;
		regs.rip -= 2;
		run->pc = regs.rip;
		rc = vessel_set_registers(vessel, &regs);
		return rc < 0 ? rc : 1;
	case SYS_fork:
	case SYS_vfork:
	case SYS_clone:
	case SYS_clone3:
		return refuse(vessel, &regs, EAGAIN);
	case SYS_execve:
	case SYS_execveat:
	case SYS_ptrace:
	case SYS_process_vm_readv:
	case SYS_process_vm_writev:
	case SYS_userfaultfd:
	case SYS_pidfd_send_signal:
		return refuse(vessel, &regs, EPERM);
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
		return signal_self(vessel, &regs);
	case SYS_getpid:
		return skip(vessel, &regs, vessel->recorded_pid);
	case SYS_gettid:
	case SYS_set_tid_address:
		return skip(vessel, &regs, vessel->recorded_tid);
	default:
		return layout_system_call(vessel, &regs);
	}
}
