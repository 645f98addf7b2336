#define _GNU_SOURCE
#include "effects/trial.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "effects/transaction.h"
#include "pager/memory.h"
#include "process/run.h"
#include "process/task.h"
#include "process/vessel.h"
#include "process/wait.h"
#include "syscalls/policy.h"

/* Where the pages of the trial lie; nothing else is in that vessel. */
#define CODE 0x10000000ul
#define STEPS 0x10001000ul
#define PAGES 0x20000000ul /* with bytes */
#define ZEROS 0x30000000ul /* without */
#define COUNT 8ul          /* pages of each */

enum what { READ = 0, WRITE = 1, SYSTEM_CALL = 2 };

struct step {
	uint64_t what, arguments[5]; /* READ, WRITE: the second, of the byte at the first; else: the number */
};

#define AT(base, page) ((base) + (page) * PAGE_BYTES)
#define CALL(number) (SYSTEM_CALL + (number))
#define END {~0ul, {0}}

/* Page 0 is never touched. */
static const struct step first[] = {
	{READ, {AT(PAGES, 1), 0, 0, 0, 0}},
	{WRITE, {AT(PAGES, 2), 0x22, 0, 0, 0}},
	{READ, {AT(PAGES, 3), 0, 0, 0, 0}},
	{WRITE, {AT(PAGES, 3) + 7, 0x33, 0, 0, 0}},
	{WRITE, {AT(PAGES, 4), 0x44, 0, 0, 0}}, /* dropped */
	{CALL(SYS_madvise), {AT(PAGES, 4), PAGE_BYTES, MADV_DONTNEED, 0, 0}},
	{READ, {AT(PAGES, 4), 0, 0, 0, 0}},
	{READ, {AT(ZEROS, 1), 0, 0, 0, 0}},
	{WRITE, {AT(ZEROS, 2), 0x55, 0, 0, 0}},
	{WRITE, {AT(ZEROS, 4), 0x66, 0, 0, 0}}, /* moved */
	{CALL(SYS_mremap), {AT(ZEROS, 4), PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, AT(ZEROS, COUNT)}},
	END,
};
static const uint64_t first_written[] = {AT(PAGES, 2), AT(PAGES, 3), AT(PAGES, 4), AT(ZEROS, 2),
					 AT(ZEROS, COUNT)};
static const struct step second[] = {
	{READ, {AT(PAGES, 2), 0, 0, 0, 0}},
	{WRITE, {AT(PAGES, 3), 0x77, 0, 0, 0}},
	{WRITE, {AT(ZEROS, 1), 0x78, 0, 0, 0}},
	{WRITE, {AT(ZEROS, COUNT), 0x79, 0, 0, 0}},
	END,
};
static const uint64_t second_written[] = {AT(PAGES, 3), AT(ZEROS, 1), AT(ZEROS, COUNT)};

struct trial {
	struct pager pager;
	struct vessel vessel;
	uint8_t code[PAGE_BYTES], bytes[COUNT * PAGE_BYTES];
	struct error *error;
};

static int add(struct trial *trial, uint64_t start, uint64_t pages, int prot, const uint8_t *bytes)
{
	struct region region = {
		.start = start,
		.end = start + pages * PAGE_BYTES,
		.prot = prot,
		.kind = bytes ? REGION_BYTES : REGION_ZERO,
		.bytes = bytes,
		.bytes_len = bytes ? pages * PAGE_BYTES : 0,
	};

	return regions_set(&trial->pager.regions, &region);
}

static int build(struct trial *trial)
{
	struct rule *rules = trial->vessel.policy.rules;

	rules[SYS_madvise] = rules[SYS_mremap] = (struct rule){.action = POLICY_TRACE, .traced = true};
	rules[SYS_madvise].handler = (uint8_t)policy_handler("madvise");
	rules[SYS_mremap].handler = (uint8_t)policy_handler("mremap");
	memcpy(trial->code, arch_trial.bytes, arch_trial.len);
	memset(trial->bytes, 0x11, sizeof(trial->bytes));
	int rc = add(trial, CODE, 1, PROT_READ | PROT_EXEC, trial->code);
	if (rc == 0)
		rc = add(trial, STEPS, 1, PROT_READ | PROT_WRITE, NULL);
	if (rc == 0)
		rc = add(trial, PAGES, COUNT, PROT_READ | PROT_WRITE, trial->bytes);
	if (rc == 0)
		rc = add(trial, ZEROS, COUNT, PROT_READ | PROT_WRITE, NULL);
	if (rc == 0)
		rc = regions_copy(&trial->pager.recorded, &trial->pager.regions);
	if (rc < 0)
		return fail(trial->error, -rc, "setting up");
	rc = vessel_create(&trial->vessel, &trial->pager);
	if (rc < 0)
		*trial->error = trial->vessel.error;
	return rc;
}

static int run(struct trial *trial, const struct step *steps, size_t bytes)
{
	struct registers regs;
	struct run how;

	int rc = memory_write(&trial->pager, STEPS, (const uint8_t *)steps, bytes, WRITER_GDB);
	if (rc < 0)
		return fail(trial->error, -rc, "a write by the debugger");
	rc = task_get_registers(&trial->vessel, &regs);
	arch_enter(&regs, CODE, STEPS);
	if (rc == 0)
		rc = task_set_registers(&trial->vessel, &regs);
	if (rc == 0)
		rc = run_resume(&trial->vessel, RESUME_CONTINUE, 0, 0, 0);
	if (rc == 0)
		rc = wait_vessel(&trial->vessel, -1, &how);
	if (rc < 0) {
		*trial->error = trial->vessel.error;
		return rc;
	}
	if (how.end != RUN_STOPPED || how.pc != CODE + arch_trial.len - BREAKPOINT_BYTES + BREAKPOINT_SKIPS)
		return fail(trial->error, 0, "the trial stopped at %#lx with signal %d", how.pc, how.signal);
	return 0;
}

/* Exactly these pages, by the program; by the debugger none but the steps. */
static int check(struct trial *trial, const uint64_t *pages, size_t count)
{
	struct changes changes;
	size_t found = 0;

	int rc = transaction_collect(&trial->pager, &changes);
	if (rc < 0)
		return fail(trial->error, -rc, "collecting what was written");
	for (size_t i = 0; rc == 0 && i < changes.count; i++) {
		const struct change *change = &changes.at[i];
		if (change->page == STEPS && change->writers == WRITER_GDB)
			continue;
		if (found < count && change->page > pages[found])
			break;
		if (found == count || change->page != pages[found++] || change->writers != WRITER_PROGRAM)
			rc = fail(trial->error, 0, "%#lx counts as written, %s", change->page,
				  change->writers == WRITER_PROGRAM ? "and was not" : "but not by the program");
	}
	if (rc == 0 && found < count)
		rc = fail(trial->error, 0, "a write to %#lx was not seen", pages[found]);
	changes_deinit(&changes);
	return rc;
}

static int expect(struct trial *trial, uint64_t address, uint8_t byte)
{
	uint8_t got = 0;
	size_t done;

	int rc = memory_read(&trial->pager, address, &got, 1, &done);
	if (rc == 0 && got == byte)
		return 0;
	return fail(trial->error, -rc, "the byte at %#lx is %#x, not %#x", address, got, byte);
}

static int play(struct trial *trial)
{
	int rc = run(trial, first, sizeof(first));

	if (rc == 0)
		rc = check(trial, first_written, sizeof(first_written) / sizeof(*first_written));
	if (rc == 0)
		rc = expect(trial, AT(PAGES, 4), 0);
	if (rc == 0)
		rc = transaction_commit(&trial->pager);
	if (rc == 0)
		rc = run(trial, second, sizeof(second));
	if (rc == 0)
		rc = check(trial, second_written, sizeof(second_written) / sizeof(*second_written));
	if (rc == 0)
		rc = transaction_discard(&trial->pager, false);
	if (rc == 0)
		rc = expect(trial, AT(PAGES, 3), 0x11);
	if (rc == 0)
		rc = expect(trial, AT(PAGES, 3) + 7, 0x33);
	if (rc == 0)
		rc = expect(trial, AT(ZEROS, 1), 0);
	return rc == 0 ? expect(trial, AT(ZEROS, COUNT), 0x66) : rc;
}

int trial_run(const struct tracker_kind *kind, const struct uffd_offer *offer, struct error *error)
{
	struct trial trial = {.error = error};

	policy_init(&trial.vessel);
	int rc = pager_init(&trial.pager);
	if (rc < 0)
		return fail(error, -rc, "pager");
	trial.pager.tracker.kind = kind;
	trial.pager.tracker.offer = *offer;
	rc = build(&trial);
	if (rc == 0)
		rc = play(&trial);
	vessel_destroy(&trial.vessel);
	vessel_deinit(&trial.vessel);
	pager_deinit(&trial.pager);
	return rc;
}
