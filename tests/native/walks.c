/* A stack that was laid out to lead nowhere, or on for ever: whoever follows it ends, soon.
 * Exits with 0 and "ok", or says what was wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "pager/callers.h"
#include "table/regions.h"

#define CODE 0x10000000ul
#define CODE_BYTES (16ul << 20)
#define STACK 0x7f0000000000ul
#define STACK_BYTES (256ul << 10)
#define MOST_READS 10000

static uint8_t *code, *stack;
static size_t reads;

static int read_memory(void *context, uint64_t address, uint8_t *to, size_t len, size_t *done)
{
	struct regions *regions = context;
	const struct region *region = regions_find(regions, address);

	reads++;
	*done = 0;
	if (!region)
		return -1;
	*done = region->end - address < len ? region->end - address : len;
	memcpy(to, region->bytes + (address - region->start), *done);
	return *done == len ? 0 : -1;
}

static size_t walk(struct code_space *space, uint64_t callers[CALLERS_MAX])
{
	struct access who = {.pc = CODE + CODE_BYTES / 2, .sp = STACK + 64, .address = CODE, .tid = 1};

	reads = 0;
	size_t count = callers_find(space, &who, callers);
	check(count <= CALLERS_MAX, "%zu callers", count);
	check(reads <= MOST_READS, "%zu reads", reads);
	return count;
}

/* Every word of the stack another address, behind bytes that look like a call by `length` bytes. */
static void fill(const uint8_t *call, size_t length)
{
	for (size_t i = 0; i + length <= CODE_BYTES; i += length)
		memcpy(code + i, call, length);
	for (size_t i = 0; i < STACK_BYTES / 8; i++) {
		uint64_t to = CODE + 4096 + (i * 7919 * length) % (CODE_BYTES - 8192) / length * length;
		memcpy(stack + i * 8, &to, 8);
	}
}

/* What was learnt of code holds as long as the code is there. */
static void check_layouts(struct code_space *space, struct regions *regions, const struct region *part)
{
	uint64_t at = CODE + 4096, half = CODE + CODE_BYTES / 2;

	for (int returned = 0; returned < 2; returned++) {
		space->effort = 1 << 20;
		const struct code *known = code_at(space, at, returned);
		check(known && known->address == at, "what is known of code, %d", returned);
		check(code_at(space, at, returned) == known && code_at(space, half, returned), "and still is, %d", returned);
		check(regions_protect(regions, CODE, half, PROT_READ) == 0, "protect");
		check(!code_at(space, at, returned), "code that is none any more, %d", returned);
		check(code_at(space, half, returned) != NULL, "the other half is, %d", returned);
		check(regions_set(regions, part) == 0, "set");
		check(code_at(space, at, returned) != NULL, "code again, %d", returned);
		check(regions_clear(regions, CODE, half) == 0, "clear");
		check(!code_at(space, at, returned), "code that is unmapped, %d", returned);
		check(regions_set(regions, part) == 0, "set");
	}
}

int main(void)
{
	struct regions regions = {0};
	uint64_t callers[CALLERS_MAX];

	code = calloc(1, CODE_BYTES);
	stack = calloc(1, STACK_BYTES);
	check(code && stack, "memory");
	struct region parts[] = {
		{.start = CODE, .end = CODE + CODE_BYTES, .prot = PROT_READ | PROT_EXEC, .kind = REGION_BYTES, .bytes = code, .bytes_len = CODE_BYTES},
		{.start = STACK, .end = STACK + STACK_BYTES, .prot = PROT_READ | PROT_WRITE, .kind = REGION_BYTES, .bytes = stack, .bytes_len = STACK_BYTES},
	};
	check(regions_set(&regions, &parts[0]) == 0 && regions_set(&regions, &parts[1]) == 0, "regions");
	struct code_space space = {.read = read_memory, .context = &regions, .regions = &regions};

	check_layouts(&space, &regions, &parts[0]);
	walk(&space, callers); /* zeros */
	static const uint8_t elsewhere[] = {0xe8, 0, 0, 0, 0x40}, indirect[] = {0xff, 0xd0}, frame[] = {0x55, 0x48, 0x89, 0xe5};
	fill(elsewhere, sizeof(elsewhere));
	check(walk(&space, callers) == 0, "a call that leads to another function");
	fill(indirect, sizeof(indirect));
	walk(&space, callers);
	fill(frame, sizeof(frame));
	walk(&space, callers);
	space.call_floor = STACK + 64; /* the very first word is where gdb's call returns to */
	fill(indirect, sizeof(indirect));
	check(walk(&space, callers) == 0, "nothing is above gdb's call");
	/* Code that is written anew each time is looked at each time. */
	check(regions_protect(&regions, CODE, CODE + CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC) == 0, "protect");
	space.call_floor = 0;
	fill(elsewhere, sizeof(elsewhere));
	walk(&space, callers);
	code_forget(&space);
	regions_deinit(&regions);
	free(code);
	free(stack);
	puts("ok");
	return 0;
}
