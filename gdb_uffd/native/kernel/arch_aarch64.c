#ifdef __aarch64__
#define _GNU_SOURCE
#include "kernel/arch.h"

#include <asm/ptrace.h>
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPPING (1ul << 21) /* PSTATE.SS (Arm ARM C5.2.19): the kernel sets it when it steps */

/* The program's name is the last thing on its stack, which ends where user memory does: at 2^48, or
 * 2^39 or 2^42 of a kernel so configured (Documentation/arch/arm64/memory.rst). */
uint64_t arch_user_end(void)
{
	uint64_t top = getauxval(AT_EXECFN);

	return top ? 1ul << (64 - __builtin_clzl(top)) : 1ul << 48;
}

static int get_set(pid_t pid, uint64_t kind, void *to, size_t len)
{
	struct iovec io = {to, len};

	return ptrace(PTRACE_GETREGSET, pid, kind, &io) < 0 ? -errno : 0;
}

static int put_set(pid_t pid, uint64_t kind, const void *from, size_t len)
{
	struct iovec io = {(void *)from, len};

	return ptrace(PTRACE_SETREGSET, pid, kind, &io) < 0 ? -errno : 0;
}

int arch_get_registers(pid_t pid, struct registers *regs)
{
	int32_t number = -1;
	int rc = get_set(pid, NT_PRSTATUS, &regs->user, sizeof(regs->user));

	if (rc == 0)
		rc = get_set(pid, NT_ARM_TLS, &regs->tls, sizeof(regs->tls));
	if (rc == 0)
		rc = get_set(pid, NT_ARM_SYSTEM_CALL, &number, sizeof(number));
	regs->number = number;
	regs->user.pstate &= ~STEPPING;
	return rc;
}

int arch_set_registers(pid_t pid, const struct registers *regs)
{
	int32_t number = (int32_t)regs->number;
	int rc = put_set(pid, NT_PRSTATUS, &regs->user, sizeof(regs->user));

	if (rc == 0)
		rc = put_set(pid, NT_ARM_TLS, &regs->tls, sizeof(regs->tls));
	return rc == 0 ? put_set(pid, NT_ARM_SYSTEM_CALL, &number, sizeof(number)) : rc;
}

int arch_get_pc(pid_t pid, uint64_t *pc)
{
	struct user_regs_struct user;
	int rc = get_set(pid, NT_PRSTATUS, &user, sizeof(user));

	*pc = user.pc;
	return rc;
}

void arch_skip_call(struct registers *regs, int64_t result)
{
	NUMBER(regs) = -1; /* as el0_svc_common has it: no call, and x0 as it was set */
	RESULT(regs) = (uint64_t)result;
}

void arch_stand_before(struct registers *regs, bool stepped)
{
	(void)stepped;
	NUMBER(regs) = -1; /* x0 and x8 are still what the caller set */
	PC(regs) -= 4;
}

/* x0 is argument and result in one. */
void arch_restore_arguments(struct registers *regs, const struct registers *own)
{
	memcpy(&regs->user.regs[1], &own->user.regs[1], 5 * sizeof(regs->user.regs[0]));
}

int arch_own_call(struct registers *regs, uint64_t *address, uint64_t *value)
{
	(void)regs;
	(void)address;
	(void)value;
	return OWN_REFUSED; /* there is none */
}

/* x19 = table: { nr, a0..a5, result }; runs entries until nr is -1, then brk.
 *   loop: ldr x8, [x19]; cmn x8, #1; b.eq end; ldp x0, x1, [x19, #8]; ldp x2, x3, [x19, #24];
 *         ldp x4, x5, [x19, #40]; svc #0; str x0, [x19, #56]; add x19, x19, #64; b loop;  end: brk #0 */
static const uint32_t restorer[] = {
	0xf9400268, 0xb100051f, 0x54000100, 0xa9408660, 0xa9418e62, 0xa9429664,
	0xd4000001, 0xf9001e60, 0x91010273, 0x17fffff7, 0xd4200000,
};
const struct machine_code arch_restorer = {restorer, sizeof(restorer)};

/* x19 points to the steps; anything after them but READ, WRITE, or a system call's number + 2 stops:
 *   1: ldr x9, [x19]; ldp x0, x1, [x19, #8]; ldp x2, x3, [x19, #24]; ldr x4, [x19, #40];
 *      add x19, x19, #48; cmn x9, #1; b.eq 4f; cmp x9, #1; b.eq 2f; b.lo 3f; sub x8, x9, #2; svc #0; b 1b;
 *   2: strb w1, [x0]; b 1b;  3: ldrb w9, [x0]; b 1b;  4: brk #0 */
static const uint32_t trial[] = {
	0xf9400269, 0xa9408660, 0xa9418e62, 0xf9401664, 0x9100c273, 0xb100053f,
	0x54000160, 0xf100053f, 0x540000a0, 0x540000c3, 0xd1000928, 0xd4000001,
	0x17fffff4, 0x39000001, 0x17fffff2, 0x39400009, 0x17fffff0, 0xd4200000,
};
const struct machine_code arch_trial = {trial, sizeof(trial)};

void arch_enter(struct registers *regs, uint64_t code, uint64_t table)
{
	PC(regs) = code;
	regs->user.regs[19] = table;
	NUMBER(regs) = -1;
}

/* A step over a system call is told without a reason, from nobody (user_single_step_report). */
bool arch_is_step(const siginfo_t *info)
{
	return info->si_code == TRAP_TRACE || (info->si_code == SI_USER && info->si_pid == 0);
}

static uint32_t word(const uint8_t *code)
{
	uint32_t instruction;

	memcpy(&instruction, code, sizeof(instruction));
	return instruction;
}

/* The steps of FEAT_MOPS (CPYP, CPYM, CPYE, SETP ...) may be interrupted, and each goes on where it was:
 * size 00, op 011x 01 (Arm ARM C4.1.94, "Memory Copy and Memory Set"). */
int arch_repeated(const uint8_t *code)
{
	return (word(code) & 0x3b200c00) == 0x19000400 ? 4 : 0;
}

/* STXR, STLXR, STXP, STLXP and their forms for bytes and halfwords: "Load/store exclusive" with o2 = 0
 * and L = 0; with bit 31 clear and o1 = 1 it is CASP (Arm ARM C4.1.94). */
bool arch_stores_exclusively(const uint8_t *code)
{
	uint32_t instruction = word(code);

	return (instruction & 0x3fc00000) == 0x08000000 && (instruction & 0x80200000) != 0x00200000;
}

#define ENABLED 1u
#define MATCHES_LOAD (1u << 3)
#define MATCHES_STORE (1u << 4)
#define BYTES_AT 5 /* BAS: which of eight bytes are watched, or which of an instruction's four */

static size_t offset_of(size_t slot)
{
	return offsetof(struct user_hwdebug_state, dbg_regs[0]) +
	       slot * sizeof(((struct user_hwdebug_state *)0)->dbg_regs[0]);
}

/* The slots of one kind of debug register, in order; the rest is off. */
static int set_state(pid_t pid, uint64_t kind, const struct debug_slot *slots, size_t count)
{
	struct user_hwdebug_state state;
	size_t used = 0;

	memset(&state, 0, sizeof(state));
	int rc = get_set(pid, kind, &state, sizeof(state));
	if (rc < 0)
		return rc;
	size_t there = state.dbg_info & 0xff;
	if (there > 16)
		there = 16;
	for (size_t i = 0; i < there; i++)
		state.dbg_regs[i].ctrl = 0;
	for (size_t i = 0; i < count; i++) {
		const struct debug_slot *slot = &slots[i];
		uint32_t skip = slot->address & 7, bytes = (1u << slot->length) - 1;
		if ((slot->kind == DEBUG_EXECUTE) != (kind == NT_ARM_HW_BREAK))
			continue;
		if (used == there)
			return -ENOSPC;
		if (slot->kind == DEBUG_EXECUTE) {
			state.dbg_regs[used].addr = slot->address;
			state.dbg_regs[used++].ctrl = 0xfu << BYTES_AT | ENABLED;
			continue;
		}
		uint32_t match = (slot->kind != DEBUG_READ ? MATCHES_STORE : 0) |
				 (slot->kind != DEBUG_WRITE ? MATCHES_LOAD : 0);
		state.dbg_regs[used].addr = slot->address - skip;
		state.dbg_regs[used++].ctrl = bytes << (BYTES_AT + skip) | match | ENABLED;
	}
	return there ? put_set(pid, kind, &state, offset_of(there)) : 0;
}

int arch_set_debug(pid_t pid, const struct debug_slot *slots, size_t count)
{
	int rc = count > DEBUG_SLOTS ? -ENOSPC : set_state(pid, NT_ARM_HW_BREAK, slots, count);

	return rc == 0 ? set_state(pid, NT_ARM_HW_WATCH, slots, count) : rc;
}

int arch_forget_hits(pid_t pid)
{
	(void)pid; /* they are told with the stop */
	return 0;
}

/* The stop comes before the access, with its address, which may lie below what is watched: the
 * nearest one was meant (watchpoint_report in arch/arm64/kernel/hw_breakpoint.c). */
int arch_debug_hits(pid_t pid, const struct debug_slot *slots, size_t count)
{
	siginfo_t info;
	uint64_t nearest = UINT64_MAX;
	int hits = 0;

	if (ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) < 0)
		return -errno;
	if (info.si_signo != SIGTRAP || info.si_code != TRAP_HWBKPT)
		return 0;
	uint64_t at = (uint64_t)info.si_addr;
	for (size_t i = 0; i < count; i++) {
		uint64_t start = slots[i].address, end = start + slots[i].length;
		uint64_t far = at < start ? start - at : at >= end ? at - end + 1 : 0;
		if (slots[i].kind == DEBUG_EXECUTE && far)
			continue;
		if (far < nearest)
			hits = 0;
		if (far <= nearest)
			hits |= 1 << i;
		nearest = far < nearest ? far : nearest;
	}
	return hits;
}

/* There is no such area. */
int arch_xsave_component(int number, uint32_t *offset, uint32_t *size)
{
	(void)number;
	*offset = *size = 0;
	return -1;
}

uint64_t arch_xcr0(void)
{
	return 0;
}

/* BL; BLR and its forms with authentication, BLRAA to BLRABZ (Arm ARM C4.1, "Branches"). */
int arch_call_before(const uint8_t *code, uint64_t behind, uint64_t *target)
{
	uint32_t instruction;

	memcpy(&instruction, code, sizeof(instruction));
	if ((instruction & 0xfc000000) == 0x94000000) {
		int64_t words = (int32_t)(instruction << 6) >> 6;
		*target = behind - 4 + (uint64_t)(words * 4);
		return CALL_DIRECT;
	}
	return (instruction & 0xfefff000) == 0xd63f0000 ? CALL_INDIRECT : CALL_NONE;
}

/* Not told: a caller may stand in the link register, which nobody can see. */
uint64_t arch_stub_slot(const uint8_t *code, uint64_t at)
{
	(void)code;
	(void)at;
	return 0;
}

bool arch_is_unbound(const uint8_t *code)
{
	(void)code;
	return false;
}

size_t arch_prologue_before(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return 0;
}

bool arch_prologue(const uint8_t *code, size_t len, uint64_t *depth)
{
	(void)code;
	(void)len;
	*depth = 0;
	return false;
}

#endif
