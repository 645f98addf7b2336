#define _GNU_SOURCE
#include "watch.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pager.h"
#include "uffd.h"
#include "vessel.h"

#define EXCLUSIVE_REACH 64 /* bytes between an exclusive load and its store (Arm ARM K: 16 instructions) */

void watch_deinit(struct watch *watch)
{
	free(watch->old);
	free(watch->now);
	*watch = (struct watch){0};
}

static uint64_t floor_page(uint64_t address)
{
	return address & ~(PAGE_BYTES - 1);
}

static bool is_present(const struct pager *pager, uint64_t page)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);

	return slot && slot->present;
}

static int protect(struct pager *pager, uint64_t page, bool on)
{
	struct written *w = pages_written(&pager->pages, page);
	int rc = uffd_protect(pager->uffd, page, PAGE_BYTES, on);

	if (w)
		w->armed = on && rc == 0;
	/* Dropped, or never registered (a device): not watched there. */
	return rc == -ENOENT || rc == -ESRCH ? 0 : rc;
}

/* The object's bytes in [low, high), which lies in one page; zeros where there are none. */
static void look_at(struct pager *pager, uint64_t low, uint64_t high)
{
	struct watch *watch = &pager->watch;
	uint8_t *to = watch->now + (low - watch->start);
	size_t done;

	if (pager_read(pager, low, to, high - low, &done) < 0)
		memset(to + done, 0, high - low - done);
}

int watch_start(struct pager *pager, uint64_t start, uint64_t end, bool pages)
{
	struct watch *watch = &pager->watch;

	watch_deinit(watch);
	if (start >= end || end - start > WATCH_BYTES_MAX)
		return -E2BIG;
	if (end > UINT64_MAX - PAGE_BYTES) /* the page behind it has an address */
		return -EINVAL;
	watch->old = calloc(1, end - start);
	watch->now = calloc(1, end - start);
	if (!watch->old || !watch->now) {
		watch_deinit(watch);
		return -ENOMEM;
	}
	watch->start = start;
	watch->end = end;
	watch->pages = pages;
	watch->call = -1;
	for (uint64_t page = floor_page(start); page < end; page += PAGE_BYTES) {
		uint64_t low = page > start ? page : start;
		uint64_t high = page + PAGE_BYTES < end ? page + PAGE_BYTES : end;
		/* What is not there yet is protected when it is fed. */
		if (pages && is_present(pager, page)) {
			int rc = protect(pager, page, true);
			if (rc < 0)
				return rc;
		}
		look_at(pager, low, high);
	}
	memcpy(watch->old, watch->now, end - start);
	return 0;
}

void watch_accept(struct watch *watch, uint64_t low, uint64_t high)
{
	if (low < watch->start || high > watch->end || low >= high)
		return;
	memcpy(watch->old + (low - watch->start), watch->now + (low - watch->start), high - low);
}

/* Widens [*low, *high) by what differs in one page of the object. */
static bool compare_page(struct pager *pager, uint64_t page, uint64_t *low, uint64_t *high)
{
	struct watch *watch = &pager->watch;
	uint64_t from = page > watch->start ? page : watch->start;
	uint64_t to = page + PAGE_BYTES < watch->end ? page + PAGE_BYTES : watch->end;

	look_at(pager, from, to);
	const uint8_t *old = watch->old + (from - watch->start), *now = watch->now + (from - watch->start);
	size_t len = to - from, first = 0;
	if (memcmp(old, now, len) == 0)
		return false;
	while (old[first] == now[first])
		first++;
	while (old[len - 1] == now[len - 1])
		len--;
	if (!*high || from + first < *low)
		*low = from + first;
	if (from + len > *high)
		*high = from + len;
	return true;
}

int watch_compare(struct pager *pager, bool all, uint64_t *low, uint64_t *high)
{
	struct watch *watch = &pager->watch;
	bool differs = false;

	*low = *high = 0;
	for (uint64_t page = floor_page(watch->start); page < watch->end; page += PAGE_BYTES) {
		const struct written *w = pages_written(&pager->pages, page);
		bool open = w && !w->armed && is_present(pager, page);
		if (watch->pages && !open && !all)
			continue;
		differs |= compare_page(pager, page, low, high);
		if (watch->pages && open) {
			int rc = protect(pager, page, true);
			if (rc < 0)
				return rc;
		}
	}
	return differs;
}

int watch_timer(unsigned int milliseconds)
{
	struct itimerspec spec = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000000l}};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (!milliseconds)
		spec.it_value.tv_nsec = 1; /* zero would disarm it */
	if (timerfd_settime(fd, 0, &spec, NULL) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

bool watch_stop(struct watch *watch, pid_t vessel, uint64_t page, const struct access *who)
{
	/* In a system call the kernel would try again for ever, never reaching the stop.  So it would
	 * in writing a signal's frame, which looks like an instruction's write, but comes twice. */
	if (who->call || watch->hit_page == page)
		return false;
	watch->hit_page = page;
	watch->hit = *who;
	return kill(vessel, SIGSTOP) == 0;
}

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
	(void)pager_read(pager, pc, code, LONGEST_INSTRUCTION, &done);
}

static int set_pc(struct vessel *vessel, uint64_t pc)
{
	struct registers regs;
	int rc = vessel_get_registers(vessel, &regs);

	PC(&regs) = pc;
	return rc < 0 ? rc : vessel_set_registers(vessel, &regs);
}

/* One event of the vessel while it makes the instruction.  1: made; 0: again; 2: something else
 * stopped it, `status` says what. */
static int make(struct vessel *vessel, uint64_t next, int *status)
{
	struct pager *pager = vessel->pager;
	siginfo_t info;

	if (ptrace(next ? PTRACE_CONT : PTRACE_SINGLESTEP, vessel->pid, NULL, NULL) < 0)
		return -errno;
	if (vessel_wait_stop(vessel, status) < 0)
		return 2; /* it was killed */
	if (WSTOPSIG(*status) == SIGSTOP) {
		uint64_t page = take_hit(pager);
		return page ? protect(pager, page, false) : 0; /* 0: Ctrl-C, asked for again below */
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
	int rc = next ? pager_breakpoint_insert(pager, next) : 0;
	bool planted = pager->breakpoint_count > before;

	for (; rc == 0 && tries; tries--)
		rc = make(vessel, next, status);
	if (planted && vessel->pid)
		pager_breakpoint_remove(pager, next);
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

int watch_step(struct vessel *vessel, struct run *run)
{
	struct pager *pager = vessel->pager;
	struct watch *watch = &pager->watch;
	uint64_t pc = run->pc, address = watch->hit.address;
	int status = 0;

	int rc = protect(pager, take_hit(pager), false);
	if (rc == 0)
		rc = make_instruction(vessel, pc, &status);
	if (rc < 0)
		return rc;
	run->status = status;
	if (!vessel->pid) {
		run->end = RUN_GONE;
		return 1;
	}
	if (watch_mend_mask(vessel) < 0)
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

int watch_note_mask(struct vessel *vessel)
{
	struct watch *watch = &vessel->pager->watch;

	return watch->end ? vessel_get_sigmask(vessel, &watch->mask) : 0;
}

int watch_mend_mask(struct vessel *vessel)
{
	const struct watch *watch = &vessel->pager->watch;
	uint64_t now;

	if (!watch->end || !(watch->mask >> (SIGTRAP - 1) & 1))
		return 0;
	int rc = vessel_get_sigmask(vessel, &now);
	return rc < 0 ? rc : vessel_set_sigmask(vessel, now | 1ul << (SIGTRAP - 1));
}

int watch_look(struct vessel *vessel, struct run *run)
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

static bool changes_layout(int64_t number)
{
	return number == SYS_mmap || number == SYS_munmap || number == SYS_mremap || number == SYS_brk ||
	       number == SYS_madvise;
}

int watch_system_call(struct vessel *vessel, struct run *run)
{
	struct watch *watch = &vessel->pager->watch;
	struct registers regs;
	int rc = vessel_get_registers(vessel, &regs);

	if (rc < 0)
		return rc;
	bool entry = catch_is_entry(vessel->pid);
	if (entry)
		watch->call = (int64_t)NUMBER(&regs);
	rc = watch_note_mask(vessel);
	if (rc == 0 && (CALL_STOP_IS_WHOLE || !entry))
		rc = watch_look(vessel, run);
	/* For the look behind it, when pages may have gone. */
	watch->all |= entry && changes_layout(watch->call);
	if (rc == 1 && !CALL_STOP_IS_WHOLE)
		return vessel_leave_event(vessel, run);
	return rc;
}
