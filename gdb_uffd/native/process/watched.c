#define _GNU_SOURCE
#include "process/watched.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pager/breakpoints.h"
#include "pager/memory.h"
#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"

#define EXCLUSIVE_REACH 64 /* bytes between an exclusive load and its store (Arm ARM K: 16 instructions) */

static uint64_t take_hit(struct pager *pager)
{
	pthread_mutex_lock(&pager->lock);
	uint64_t page = pager->watch.hit_page;
	pager->watch.hit_page = 0;
	pthread_mutex_unlock(&pager->lock);
	return page;
}

/* The code at `pc`; zeros where there is none. */
static void look_at_code(struct pager *pager, uint64_t pc, uint8_t code[LONGEST_INSTRUCTION])
{
	size_t done;

	memset(code, 0, LONGEST_INSTRUCTION);
	(void)memory_read(pager, pc, code, LONGEST_INSTRUCTION, &done);
}

static int set_pc(struct vessel *vessel, uint64_t pc)
{
	struct registers regs;
	int rc = task_get_registers(vessel, &regs);

	PC(&regs) = pc;
	return rc < 0 ? rc : task_set_registers(vessel, &regs);
}

/* One event of the vessel while it makes the instruction.  1: made; 0: again; 2: something else
 * stopped it, `status` says what. */
static int make(struct vessel *vessel, uint64_t next, int *status)
{
	struct pager *pager = vessel->pager;
	siginfo_t info;

	if (ptrace(next ? PTRACE_CONT : PTRACE_SINGLESTEP, vessel->pid, NULL, NULL) < 0)
		return -errno;
	if (task_wait_stop(vessel, status) < 0)
		return 2; /* it was killed */
	if (WSTOPSIG(*status) == SIGSTOP) {
		uint64_t page = take_hit(pager);
		return page ? watch_protect(pager, page, false) : 0; /* 0: Ctrl-C, asked for again below */
	}
	if (WSTOPSIG(*status) != SIGTRAP || *status >> 16)
		return 2;
	if (next) {
		int rc = set_pc(vessel, next);
		return rc < 0 ? rc : 1;
	}
	if (ptrace(PTRACE_GETSIGINFO, vessel->pid, NULL, &info) < 0)
		return -errno;
	return arch_is_step(&info) || (WATCHPOINTS_LOOK_BACK && info.si_code == TRAP_HWBKPT) ? 1 : 2;
}

/* As `make`, up to `next` (0: one step); `tries` bounds the pages that it opens on its way. */
static int make_until(struct vessel *vessel, uint64_t next, int *status)
{
	struct pager *pager = vessel->pager;
	uint64_t tries = (pager->watch.end - pager->watch.start) / PAGE_BYTES + 64;
	size_t before = pager->breakpoint_count;
	int rc = next ? breakpoint_insert(pager, next) : 0;
	bool planted = pager->breakpoint_count > before;

	for (; rc == 0 && tries; tries--)
		rc = make(vessel, next, status);
	if (planted && vessel->pid)
		breakpoint_remove(pager, next);
	return rc;
}

/* The stop before an exclusive store makes it fail, once: the program goes back to its load, a few
 * instructions before, and comes here again.  It must not be stopped in between. */
static int make_exclusive(struct vessel *vessel, uint64_t pc, int *status)
{
	uint64_t next = pc + LONGEST_INSTRUCTION, now = 0;
	int rc = make_until(vessel, next, status);

	if (rc == 1)
		rc = make_until(vessel, 0, status);
	if (rc == 1 && arch_get_pc(vessel->pid, &now) < 0)
		return -ESRCH;
	return rc == 1 && now < pc && pc - now <= EXCLUSIVE_REACH ? make_until(vessel, next, status) : rc;
}

static int make_instruction(struct vessel *vessel, uint64_t pc, int *status)
{
	uint8_t code[LONGEST_INSTRUCTION];

	look_at_code(vessel->pager, pc, code);
	if (arch_stores_exclusively(code))
		return make_exclusive(vessel, pc, status);
	int length = arch_repeated(code);
	return make_until(vessel, length ? pc + (uint64_t)length : 0, status);
}

int watched_step(struct vessel *vessel, struct run *run)
{
	struct pager *pager = vessel->pager;
	struct watch *watch = &pager->watch;
	uint64_t pc = run->pc, address = watch->hit.address;
	int status = 0;

	int rc = watch_protect(pager, take_hit(pager), false);
	if (rc == 0)
		rc = make_instruction(vessel, pc, &status);
	if (rc < 0)
		return rc;
	run->status = status;
	if (!vessel->pid) {
		run->end = RUN_GONE;
		return 1;
	}
	if (watched_mend_mask(vessel) < 0)
		return -ESRCH;
	if (vessel->stop_sent) /* it may have come as the stop that we took for ours */
		kill(vessel->pid, SIGSTOP);
	int differs = watch_compare(pager, false, &run->low, &run->high);
	if (differs < 0)
		return differs;
	run->pc = pc;
	run->address = address;
	run->call = -1;
	run->stepped = true;
	if (rc == 1) {
		run->end = RUN_WATCH;
		run->signal = SIGTRAP;
		return differs || (address >= watch->start && address < watch->end);
	}
	/* It was not made, or not to its end: a fault, most likely. */
	run->end = RUN_STOPPED;
	run->stepped = false;
	run->signal = WSTOPSIG(status) & 0x7f;
	if (ptrace(PTRACE_GETSIGINFO, vessel->pid, NULL, run->siginfo) < 0)
		memset(run->siginfo, 0, sizeof(run->siginfo));
	return 1;
}

int watched_note_mask(struct vessel *vessel)
{
	struct watch *watch = &vessel->pager->watch;

	return watch->end ? task_get_sigmask(vessel, &watch->mask) : 0;
}

int watched_mend_mask(struct vessel *vessel)
{
	const struct watch *watch = &vessel->pager->watch;
	uint64_t now;

	if (!watch->end || !(watch->mask >> (SIGTRAP - 1) & 1))
		return 0;
	int rc = task_get_sigmask(vessel, &now);
	return rc < 0 ? rc : task_set_sigmask(vessel, now | 1ul << (SIGTRAP - 1));
}

int watched_look(struct vessel *vessel, struct run *run)
{
	struct pager *pager = vessel->pager;

	if (!pager->watch.end)
		return 0;
	int rc = watch_compare(pager, pager->watch.all, &run->low, &run->high);
	pager->watch.all = false;
	if (rc != 1)
		return rc;
	run->end = RUN_WATCH;
	run->signal = SIGTRAP;
	run->call = pager->watch.call;
	run->address = run->low;
	rc = arch_get_pc(vessel->pid, &run->pc);
	return rc < 0 ? rc : 1;
}

static bool changes_mappings(int64_t number)
{
	return number == SYS_mmap || number == SYS_munmap || number == SYS_mremap || number == SYS_brk ||
	       number == SYS_madvise;
}

int watched_call(struct vessel *vessel, struct run *run)
{
	struct watch *watch = &vessel->pager->watch;
	struct registers regs;
	int rc = task_get_registers(vessel, &regs);

	if (rc < 0)
		return rc;
	bool entry = catch_is_entry(vessel->pid);
	if (entry)
		watch->call = (int64_t)NUMBER(&regs);
	rc = watched_note_mask(vessel);
	if (rc == 0 && (CALL_STOP_IS_WHOLE || !entry))
		rc = watched_look(vessel, run);
	/* For the look behind it, when pages may have gone. */
	watch->all |= entry && changes_mappings(watch->call);
	if (rc == 1 && !CALL_STOP_IS_WHOLE)
		return call_leave(vessel, run);
	return rc;
}
