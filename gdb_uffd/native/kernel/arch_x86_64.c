#ifdef __x86_64__
#define _GNU_SOURCE
#include "kernel/arch.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>

#define USER_END 0x7ffffffff000ul /* TASK_SIZE_MAX of x86-64 with four-level paging */
#define TRAP_FLAG 0x100ul
#ifndef ARCH_GET_XCOMP_SUPP
#define ARCH_GET_XCOMP_SUPP 0x1021
#endif
#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM 0x1023
#endif

uint64_t arch_user_end(void)
{
	return USER_END;
}

int arch_get_registers(pid_t pid, struct registers *regs)
{
	return ptrace(PTRACE_GETREGS, pid, NULL, &regs->user) < 0 ? -errno : 0;
}

int arch_set_registers(pid_t pid, const struct registers *regs)
{
	return ptrace(PTRACE_SETREGS, pid, NULL, &regs->user) < 0 ? -errno : 0;
}

int arch_get_pc(pid_t pid, uint64_t *pc)
{
	errno = 0;
	long got = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
	*pc = (uint64_t)got;
	return errno ? -errno : 0;
}

void arch_skip_call(struct registers *regs, int64_t result)
{
	NUMBER(regs) = (unsigned long)-1; /* seccomp(2): "-1 skips it" */
	RESULT(regs) = (unsigned long)result;
}

void arch_stand_before(struct registers *regs, bool stepped)
{
	if (stepped)
		regs->user.r11 &= ~TRAP_FLAG; /* the instruction has left the flags there */
	RESULT(regs) = NUMBER(regs);
	NUMBER(regs) = (unsigned long)-1;
	PC(regs) -= 2; /* syscall is 0f 05; vsyscall entries never come here */
}

void arch_restore_arguments(struct registers *regs, const struct registers *own)
{
	ARGUMENT(regs, 0) = ARGUMENT(own, 0);
	ARGUMENT(regs, 1) = ARGUMENT(own, 1);
	ARGUMENT(regs, 2) = ARGUMENT(own, 2);
	ARGUMENT(regs, 3) = ARGUMENT(own, 3);
	ARGUMENT(regs, 4) = ARGUMENT(own, 4);
	ARGUMENT(regs, 5) = ARGUMENT(own, 5);
}

/* arch_prctl(2): the bases of FS and GS are registers of ours. */
int arch_own_call(struct registers *regs, uint64_t *address, uint64_t *value)
{
	*address = ARGUMENT(regs, 1);
	*value = 0;
	switch (ARGUMENT(regs, 0)) {
	case ARCH_SET_FS:
	case ARCH_SET_GS:
		if (*address >= USER_END)
			*value = (uint64_t)-EPERM;
		else if (ARGUMENT(regs, 0) == ARCH_SET_FS)
			regs->user.fs_base = *address;
		else
			regs->user.gs_base = *address;
		return OWN_SKIPPED;
	case ARCH_GET_FS:
		*value = regs->user.fs_base;
		return OWN_STORED;
	case ARCH_GET_GS:
		*value = regs->user.gs_base;
		return OWN_STORED;
	case ARCH_REQ_XCOMP_PERM: /* AMX: whether its registers may be used */
		return OWN_STAYS;
	default:
		return ARGUMENT(regs, 0) - ARCH_GET_XCOMP_SUPP < 5 ? OWN_WRITES : OWN_REFUSED;
	}
}

/* rbx = table: { nr, a0..a5, result }; runs entries until nr is -1, then int3.
 *   loop: mov (%rbx),%rax; cmp $-1,%rax; je end; mov 8(%rbx),%rdi; mov 16(%rbx),%rsi;
 *         mov 24(%rbx),%rdx; mov 32(%rbx),%r10; mov 40(%rbx),%r8; mov 48(%rbx),%r9; syscall;
 *         mov %rax,56(%rbx); add $64,%rbx; jmp loop;  end: int3 */
static const uint8_t restorer[] = {
	0x48, 0x8b, 0x03, 0x48, 0x83, 0xf8, 0xff, 0x74, 0x24, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73,
	0x10, 0x48, 0x8b, 0x53, 0x18, 0x4c, 0x8b, 0x53, 0x20, 0x4c, 0x8b, 0x43, 0x28, 0x4c, 0x8b, 0x4b,
	0x30, 0x0f, 0x05, 0x48, 0x89, 0x43, 0x38, 0x48, 0x83, 0xc3, 0x40, 0xeb, 0xd3, 0xcc,
};
const struct machine_code arch_restorer = {restorer, sizeof(restorer)};

/* rbx points to the steps; anything after them but READ, WRITE, or a system call's number + 2 stops:
 *   1: mov (%rbx),%rax; mov 8(%rbx),%rdi; mov 16(%rbx),%rsi; mov 24(%rbx),%rdx; mov 32(%rbx),%r10;
 *      mov 40(%rbx),%r8; add $48,%rbx; cmp $1,%rax; je 2f; jb 3f; cmp $-1,%rax; je 4f;
 *      sub $2,%rax; syscall; jmp 1b;  2: mov %sil,(%rdi); jmp 1b;  3: mov (%rdi),%cl; jmp 1b;  4: int3 */
static const uint8_t trial[] = {
	0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10, 0x48, 0x8b, 0x53, 0x18,
	0x4c, 0x8b, 0x53, 0x20, 0x4c, 0x8b, 0x43, 0x28, 0x48, 0x83, 0xc3, 0x30, 0x48, 0x83, 0xf8, 0x01,
	0x74, 0x10, 0x72, 0x13, 0x48, 0x83, 0xf8, 0xff, 0x74, 0x11, 0x48, 0x83, 0xe8, 0x02, 0x0f, 0x05,
	0xeb, 0xcf, 0x40, 0x88, 0x37, 0xeb, 0xca, 0x8a, 0x0f, 0xeb, 0xc6, 0xcc,
};
const struct machine_code arch_trial = {trial, sizeof(trial)};

void arch_enter(struct registers *regs, uint64_t code, uint64_t table)
{
	PC(regs) = code;
	regs->user.rbx = table;
	NUMBER(regs) = (unsigned long)-1;
	regs->user.eflags &= ~TRAP_FLAG;
}

bool arch_is_step(const siginfo_t *info)
{
	return info->si_code == TRAP_TRACE;
}

/* A string instruction with a repeat prefix: one "instruction" may write megabytes, and would be
 * stepped byte by byte (Intel SDM vol. 2, REP). */
int arch_repeated(const uint8_t *code)
{
	bool repeats = false;

	for (int i = 0; i < 7; i++) {
		uint8_t byte = code[i];
		if (byte == 0xf2 || byte == 0xf3)
			repeats = true;
		else if (byte == 0xa4 || byte == 0xa5 || byte == 0xaa || byte == 0xab)
			return repeats ? i + 1 : 0;
		else if (byte != 0x66 && byte != 0x67 && (byte & 0xf0) != 0x40 && byte != 0x26 &&
			 byte != 0x2e && byte != 0x36 && byte != 0x3e && byte != 0x64 && byte != 0x65)
			return 0;
	}
	return 0;
}

bool arch_stores_exclusively(const uint8_t *code)
{
	(void)code; /* there is no such instruction */
	return false;
}

static int set_debug_register(pid_t pid, int number, uint64_t value)
{
	size_t offset = offsetof(struct user, u_debugreg) + (size_t)number * sizeof(long);

	return ptrace(PTRACE_POKEUSER, pid, offset, value) < 0 ? -errno : 0;
}

/* DR0-3 hold addresses, DR7 what to look for there, DR6 what was hit (Intel SDM vol. 3, 18.2).  There is no
 * watchpoint for reads alone: R/W=3 traps on both. */
int arch_set_debug(pid_t pid, const struct debug_slot *slots, size_t count)
{
	static const uint64_t access[] = {0, 1, 3, 3}; /* R/W, by enum debug_kind */
	static const uint64_t lengths[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
	uint64_t control = 0;

	if (count > DEBUG_SLOTS)
		return -ENOSPC;
	int rc = set_debug_register(pid, 7, 0);
	for (size_t i = 0; rc == 0 && i < count; i++) {
		rc = set_debug_register(pid, (int)i, slots[i].address);
		control |= 1ul << (2 * i);
		control |= (access[slots[i].kind & 3] | lengths[slots[i].length % 9] << 2) << (16 + 4 * i);
	}
	if (rc == 0)
		rc = set_debug_register(pid, 7, control);
	return rc == 0 ? arch_forget_hits(pid) : rc;
}

int arch_forget_hits(pid_t pid)
{
	return set_debug_register(pid, 6, 0);
}

int arch_debug_hits(pid_t pid, const struct debug_slot *slots, size_t count)
{
	(void)slots;
	errno = 0;
	long got = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg) + 6 * sizeof(long), NULL);
	return errno ? -errno : (int)(got & ((1 << count) - 1));
}

int arch_xsave_component(int number, uint32_t *offset, uint32_t *size)
{
	uint32_t a, b, c, d;

	if (number < 2 || number > 62 || !__get_cpuid_count(0xd, (unsigned)number, &a, &b, &c, &d) || !a)
		return -1;
	*size = a;
	*offset = b;
	return 0;
}

uint64_t arch_xcr0(void)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return (uint64_t)d << 32 | a;
}

static uint64_t displaced(const uint8_t *code, uint64_t behind)
{
	int32_t by;

	memcpy(&by, code, sizeof(by));
	return behind + (uint64_t)(int64_t)by;
}

/* The bytes of an instruction of one opcode byte that has a ModRM byte (Intel SDM vol. 2, 2.1.3 to 2.1.5). */
static int length_of(const uint8_t *code)
{
	int mod = code[1] >> 6, rm = code[1] & 7, sib = mod != 3 && rm == 4;
	bool wide = mod == 2 || (mod == 0 && (rm == 5 || (sib && (code[2] & 7) == 5)));

	return 2 + sib + (wide ? 4 : mod == 1);
}

/* E8 rel32, or FF /2 in its forms of 2 to 7 bytes (Intel SDM vol. 2, CALL). */
int arch_call_before(const uint8_t *code, uint64_t behind, uint64_t *target)
{
	static const int lengths[] = {2, 3, 4, 6, 7};

	if (code[LONGEST_CALL - 5] == 0xe8) {
		*target = displaced(code + LONGEST_CALL - 4, behind);
		return CALL_DIRECT;
	}
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint8_t call[3] = {0};
		memcpy(call, code + LONGEST_CALL - lengths[i], lengths[i] < 3 ? 2 : 3);
		if (call[0] == 0xff && (call[1] >> 3 & 7) == 2 && length_of(call) == lengths[i])
			return CALL_INDIRECT;
	}
	return CALL_NONE;
}

/* Behind endbr64, which may be missing. */
static size_t behind_mark(const uint8_t *code)
{
	static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};

	return memcmp(code, endbr64, sizeof(endbr64)) ? 0 : sizeof(endbr64);
}

/* [endbr64;] [bnd] jmp *slot(%rip) (psABI, 5.2). */
uint64_t arch_stub_slot(const uint8_t *code, uint64_t at)
{
	size_t skip = behind_mark(code);

	skip += code[skip] == 0xf2;
	if (code[skip] != 0xff || code[skip + 1] != 0x25)
		return 0;
	return displaced(code + skip + 2, at + skip + 6);
}

/* [endbr64;] push $index */
bool arch_is_unbound(const uint8_t *code)
{
	return code[behind_mark(code)] == 0x68;
}

/* push %rbp; mov %rsp,%rbp */
static bool is_frame(const uint8_t *code)
{
	return code[0] == 0x55 && code[1] == 0x48 &&
	       ((code[2] == 0x89 && code[3] == 0xe5) || (code[2] == 0x8b && code[3] == 0xec));
}

size_t arch_prologue_before(const uint8_t *code, size_t len)
{
	for (size_t back = 4; back <= len; back++) {
		const uint8_t *at = code + len - back;
		if ((at[0] == 0xc9 || at[0] == 0x5d) && at[1] == 0xc3) /* leave, or pop %rbp; ret */
			return 0;
		if (is_frame(at))
			return len - back >= 4 && behind_mark(at - 4) ? back + 4 : back;
	}
	return 0;
}

/* [endbr64;] push %rbp; mov %rsp,%rbp; then pushes, and sub $N,%rsp. */
bool arch_prologue(const uint8_t *code, size_t len, uint64_t *depth)
{
	size_t at = len < 4 ? 0 : behind_mark(code);

	*depth = 0;
	if (len < at + 4 || !is_frame(code + at))
		return false;
	for (at += 4; at < len; *depth += 8) {
		size_t wide = code[at] == 0x41;
		if (at + wide >= len || (code[at + wide] & 0xf8) != 0x50)
			break;
		at += wide + 1;
	}
	if (len - at >= 4 && code[at] == 0x48 && code[at + 1] == 0x83 && code[at + 2] == 0xec)
		*depth += (uint64_t)(int8_t)code[at + 3];
	else if (len - at >= 7 && code[at] == 0x48 && code[at + 1] == 0x81 && code[at + 2] == 0xec)
		*depth += displaced(code + at + 3, 0);
	return true;
}

#endif
