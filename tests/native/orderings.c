/* Every ordering of read, write and gdb's write, up to four long, on a page of zeros and on a page
 * with bytes, in one transaction and in a second one after it: what is dirty, who wrote it first,
 * how it was before, what is there now, and whether an undo brings everything back.
 * Exits with 0 and "ok", or says what was wrong. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "effects/transaction.h"
#include "kernel/uffd.h"
#include "pager/breakpoints.h"
#include "pager/memory.h"
#include "process/run.h"
#include "process/task.h"
#include "process/wait.h"
#include "process/vessel.h"
#include "syscalls/policy.h"

#define CODE 0x10000000ul
#define OPERATIONS 0x10010000ul
#define ZEROS 0x20000000ul
#define BYTES 0x30000000ul
#define CONSTANTS 0x40000000ul
#define ABSENT 0x50000000ul
#define SPARE 0x60000000ul
#define PAGES 4

/* What the vessel runs: arch_enter's register points to operations; reads are gathered in another. */
extern const uint8_t interpreter[], interpreter_read[], interpreter_write[], interpreter_end[];
#ifdef __x86_64__
#define GATHERED(regs) ((regs)->user.r8)
__asm__(".section .rodata\n"
	".globl interpreter, interpreter_read, interpreter_write, interpreter_end\n"
	"interpreter:\n"
	"	mov 8(%rbx), %rcx\n"
	"	mov (%rbx), %rdi\n"
	"	cmp $1, %rcx\n"
	"	ja 3f\n"
	"	je 2f\n"
	"	shl $8, %r8\n"
	"interpreter_read:\n"
	"	mov (%rdi), %r8b\n"
	"	jmp 4f\n"
	"2:	mov 16(%rbx), %al\n"
	"interpreter_write:\n"
	"	mov %al, (%rdi)\n"
	"4:	add $24, %rbx\n"
	"	jmp interpreter\n"
	"3:	int3\n"
	"interpreter_end:\n"
	".text\n");
#else
#define GATHERED(r) ((r)->user.regs[4])
__asm__(".section .rodata\n"
	".balign 4\n"
	".globl interpreter, interpreter_read, interpreter_write, interpreter_end\n"
	"interpreter:\n"
	"	ldr x1, [x19, #8]\n"
	"	ldr x0, [x19]\n"
	"	cmp x1, #1\n"
	"	b.hi 3f\n"
	"	b.eq 2f\n"
	"	lsl x4, x4, #8\n"
	"interpreter_read:\n"
	"	ldrb w5, [x0]\n"
	"	orr x4, x4, x5\n"
	"	b 4f\n"
	"2:	ldrb w2, [x19, #16]\n"
	"interpreter_write:\n"
	"	strb w2, [x0]\n"
	"4:	add x19, x19, #24\n"
	"	b interpreter\n"
	"3:	brk #0\n"
	"interpreter_end:\n"
	".text\n");
#endif

struct operation {
	uint64_t address, what, value;
};

enum { READ, WRITE, END, GDB };

static uint8_t code[PAGE_BYTES], bytes[PAGES * PAGE_BYTES];
static struct operation operations[PAGE_BYTES / sizeof(struct operation)];
static struct pager pager;
static struct vessel vessel;

static void add(uint64_t start, uint64_t pages, int prot, int kind, const void *from)
{
	struct region region = {
		.start = start,
		.end = start + pages * PAGE_BYTES,
		.prot = prot,
		.kind = kind,
		.bytes = from,
		.bytes_len = from ? pages * PAGE_BYTES : 0,
	};

	check(regions_set(&pager.regions, &region) == 0, "%lx", start);
}

static void build(void)
{
	check(pager_init(&pager) == 0, "pager_init");
	add(CODE, 1, PROT_READ | PROT_EXEC, REGION_BYTES, code);
	add(ZEROS, PAGES, PROT_READ | PROT_WRITE, REGION_ZERO, NULL);
	add(BYTES, PAGES, PROT_READ | PROT_WRITE, REGION_BYTES, bytes);
	add(CONSTANTS, PAGES, PROT_READ, REGION_BYTES, bytes);
	add(ABSENT, PAGES, PROT_READ | PROT_WRITE, REGION_UNAVAILABLE, NULL);
	add(SPARE, 1, PROT_READ | PROT_WRITE, REGION_ZERO, NULL);
	add(OPERATIONS, 1, PROT_READ | PROT_WRITE, REGION_ZERO, NULL);
	check(regions_copy(&pager.recorded, &pager.regions) == 0, "regions_copy");
	policy_init(&vessel);
	check(vessel_create(&vessel, &pager) == 0, "%s", vessel.error.text);
}

static void tear_down(void)
{
	vessel_destroy(&vessel);
	pager_deinit(&pager);
}

/* Runs `count` operations in the vessel; the registers after it. */
static struct run run(const struct operation *list, size_t count, struct registers *regs)
{
	struct run how;

	memcpy(operations, list, count * sizeof(*list));
	operations[count] = (struct operation){0, END, 0};
	check(memory_write(&pager, OPERATIONS, (uint8_t *)operations,
			  (count + 1) * sizeof(*list), WRITER_GDB) == 0, "the operations");
	check(task_get_registers(&vessel, regs) == 0, "%s", vessel.error.text);
	arch_enter(regs, CODE, OPERATIONS);
	GATHERED(regs) = 0;
	SP(regs) = SPARE + 2048;
	check(task_set_registers(&vessel, regs) == 0, "%s", vessel.error.text);
	check(run_resume(&vessel, RESUME_CONTINUE, 0, 0, 0) == 0, "%s", vessel.error.text);
	check(wait_vessel(&vessel, -1, &how) == 0, "%s", vessel.error.text);
	check(how.end == RUN_STOPPED, "ended by %d, status %x", how.end, how.status);
	check(task_get_registers(&vessel, regs) == 0, "%s", vessel.error.text);
	return how;
}

static uint8_t now(uint64_t address)
{
	uint8_t byte;
	size_t done;

	check(memory_read(&pager, address, &byte, 1, &done) == 0 && done == 1, "%lx", address);
	return byte;
}

static const struct change *change_of(const struct changes *changes, uint64_t page)
{
	for (size_t i = 0; i < changes->count; i++)
		if (changes->at[i].page == page)
			return &changes->at[i];
	return NULL;
}

/* Runs the ordering `list` on `address`, whose byte is `byte`; returns the byte after it. */
static uint8_t transact(uint64_t address, const int *list, size_t length, uint8_t byte, uint8_t salt,
			const char *what)
{
	struct registers regs;
	uint64_t page = address & ~(PAGE_BYTES - 1), expected = 0;
	uint8_t before = byte;
	int writers = 0;

	for (size_t i = 0; i < length; i++) {
		uint8_t value = (uint8_t)(salt + 16 * i + 1);
		if (list[i] == GDB) {
			check(memory_write(&pager, address, &value, 1, WRITER_GDB) == 0, "%s", what);
			writers |= WRITER_GDB;
			byte = value;
			continue;
		}
		struct run how = run(&(struct operation){address, list[i], value}, 1, &regs);
		check(how.signal == 5, "%s: signal %d at %lx", what, how.signal, how.pc);
		if (list[i] == READ) {
			expected = byte;
			check((GATHERED(&regs) & 0xff) == expected, "%s: read %llx, not %lx", what,
			      GATHERED(&regs), expected);
		} else {
			byte = value;
			writers |= WRITER_PROGRAM;
		}
		check(now(address) == byte, "%s: %x, not %x", what, now(address), byte);
	}

	struct changes changes;
	check(transaction_collect(&pager, &changes) == 0, "%s", what);
	const struct change *change = change_of(&changes, page);
	if (!writers) {
		check(!change, "%s: dirty without a write", what);
	} else {
		check(change, "%s: a write was missed", what);
		check(change->writers == writers, "%s: writers %d, not %d", what, change->writers, writers);
		check(change->bytes_changed == (before != byte), "%s: %u bytes", what, change->bytes_changed);
		if (change->bytes_changed) {
			check(change->before[address - page] == before, "%s: before-image", what);
			check(change->after[address - page] == byte, "%s: after-image", what);
		}
		if (writers & WRITER_PROGRAM) {
			uint64_t pc = CODE + (uint64_t)(interpreter_write - interpreter);
			check(change->first.pc == pc, "%s: first write at %lx, not %lx", what,
			      change->first.pc, pc);
			check(change->first.sp == SPARE + 2048, "%s: sp %lx", what, change->first.sp);
		}
	}
	/* Nothing but this page and the operations' was written. */
	check(changes.count <= 2, "%s: %zu pages", what, changes.count);
	changes_deinit(&changes);
	return byte;
}

static void one_ordering(uint64_t address, const int *first, size_t first_length, const int *second,
			 size_t second_length, const char *what)
{
	uint8_t recorded = now(address), kept;

	/* Undone: as recorded. */
	transact(address, first, first_length, recorded, 3, what);
	check(transaction_discard(&pager, false) == 0, "%s", what);
	check(now(address) == recorded, "%s: not undone", what);
	/* Kept; then a second one on top, undone: as kept. */
	kept = transact(address, first, first_length, recorded, 5, what);
	check(transaction_commit(&pager) == 0, "%s", what);
	transact(address, second, second_length, kept, 7, what);
	check(transaction_discard(&pager, false) == 0, "%s", what);
	check(now(address) == kept, "%s: not undone to what was kept", what);
	struct registers regs;
	run(&(struct operation){address, READ, 0}, 1, &regs);
	check((GATHERED(&regs) & 0xff) == kept, "%s: the vessel sees %llx, not %x", what, GATHERED(&regs), kept);
	check(transaction_discard(&pager, false) == 0, "%s", what);
}

static void orderings(void)
{
	static const int kinds[] = {READ, WRITE, GDB};
	const uint64_t places[] = {ZEROS + 5, BYTES + PAGE_BYTES + 7};
	int first[4], second[2];
	char what[64];
	unsigned done = 0;

	for (size_t place = 0; place < 2; place++)
		for (size_t length = 1; length <= 3; length++)
			for (int n = 0, many = length == 1 ? 3 : length == 2 ? 9 : 27; n < many; n++)
				for (int m = 0; m < 9; m++) {
					for (size_t i = 0, rest = (size_t)n; i < length; i++, rest /= 3)
						first[i] = kinds[rest % 3];
					second[0] = kinds[m % 3];
					second[1] = kinds[m / 3];
					snprintf(what, sizeof(what), "place %zu length %zu n %d m %d",
						 place, length, n, m);
					build();
					one_ordering(places[place], first, length, second, 2, what);
					tear_down();
					done++;
				}
	printf("%u orderings\n", done);
}

static void faults(void)
{
	struct registers regs;
	struct run how;

	build();
	how = run(&(struct operation){ABSENT + 9, READ, 0}, 1, &regs);
	check(how.signal == 7 || how.signal == 11, "absent page read: signal %d", how.signal);
	tear_down();
	build();
	how = run(&(struct operation){ABSENT + 9, WRITE, 1}, 1, &regs);
	check(how.signal == 7 || how.signal == 11, "absent page written: signal %d", how.signal);
	tear_down();
	build();
	how = run(&(struct operation){CONSTANTS, WRITE, 1}, 1, &regs);
	check(how.signal == 11, "read-only page written: signal %d", how.signal);
	how = run(&(struct operation){CONSTANTS + 1, READ, 0}, 1, &regs);
	check(how.signal == 5 && (GATHERED(&regs) & 0xff) == bytes[1], "read-only page read");
	how = run(&(struct operation){0x70000000, READ, 0}, 1, &regs);
	check(how.signal == 11, "hole read: signal %d", how.signal);
	tear_down();
}

/* A source that is cut short while it is mapped: the vessel dies or faults, this process lives. */
static void vanished_source(void)
{
	struct registers regs;
	char path[] = "/tmp/orderings-XXXXXX";
	int fd = mkstemp(path);

	check(fd >= 0 && ftruncate(fd, PAGE_BYTES) == 0, "%s", path);
	unlink(path);
	void *map = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED, "mmap");
	build();
	check(ftruncate(fd, 0) == 0, "ftruncate");
	struct region region = {.start = BYTES, .end = BYTES + PAGE_BYTES, .prot = PROT_READ | PROT_WRITE,
				.kind = REGION_BYTES, .bytes = map, .bytes_len = PAGE_BYTES};
	check(regions_set(&pager.regions, &region) == 0, "regions_set");
	struct run how;
	memset(&how, 0, sizeof(how));
	how = run(&(struct operation){BYTES, READ, 0}, 1, &regs);
	check(how.signal == 7 || how.signal == 11, "signal %d", how.signal);
	check(pager.lost_page == BYTES, "lost page %lx", pager.lost_page);
	tear_down();
	munmap(map, PAGE_BYTES);
	close(fd);
}

/* Breakpoints are gdb's, are never seen in memory, and survive an undo of the page. */
static void breakpoints(void)
{
	struct registers regs;
	uint64_t at = CODE + (uint64_t)(interpreter_write - interpreter);
	struct changes changes;

	build();
	check(breakpoint_insert(&pager, at) == 0, "insert");
	check(now(at) == code[at - CODE], "a breakpoint shows");
	struct run how = run(&(struct operation){ZEROS, WRITE, 1}, 1, &regs);
	check(how.signal == 5 && how.pc == at + BREAKPOINT_SKIPS, "stopped at %lx", how.pc);
	check(now(ZEROS) == 0, "written before the breakpoint");
	check(transaction_collect(&pager, &changes) == 0, "collect");
	const struct change *change = change_of(&changes, CODE);
	check(change && change->writers == WRITER_GDB && !change->bytes_changed, "breakpoint's page");
	changes_deinit(&changes);
	check(transaction_discard(&pager, false) == 0, "discard");
	how = run(&(struct operation){ZEROS, WRITE, 1}, 1, &regs);
	check(how.pc == at + BREAKPOINT_SKIPS, "the undo took the breakpoint away");
	check(breakpoint_remove(&pager, at) == 0, "remove");
	how = run(&(struct operation){ZEROS, WRITE, 1}, 1, &regs);
	check(how.signal == 5 && now(ZEROS) == 1, "the breakpoint is still there");
	tear_down();
}

static void runs(void)
{
	uint8_t a[PAGE_BYTES] = {0}, b[PAGE_BYTES] = {0};
	uint16_t found[8];

	check(changes_runs(a, b, 7, found, 4) == 0, "equal pages");
	b[0] = b[8] = b[100] = b[PAGE_BYTES - 1] = 1;
	check(changes_runs(a, b, 7, found, 4) == 3, "runs");
	check(found[0] == 0 && found[1] == 9, "joined over seven: %d+%d", found[0], found[1]);
	check(found[2] == 100 && found[3] == 1 && found[4] == PAGE_BYTES - 1 && found[5] == 1, "runs");
	check(changes_runs(a, b, 6, found, 1) == 4 && found[1] == 1, "cut off");
}

int main(void)
{
	memcpy(code, interpreter, (size_t)(interpreter_end - interpreter));
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + 1);
	runs();
	faults();
	vanished_source();
	breakpoints();
	orderings();
	puts("ok");
	return 0;
}
