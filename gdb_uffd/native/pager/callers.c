#include "pager/callers.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/uffd.h"
#include "kernel/walk.h"
#include "table/regions.h"

#define WORD sizeof(uint64_t)
#define SCAN_BYTES (64ul << 10) /* of a frame that is looked for */
#define FUNCTION_BYTES 8192ul /* of one of which nothing is told, before the instruction */
#define WINDOW_BYTES 2048
#define ANY_WORDS 96 /* that are looked at where nothing is unwound */

struct walk {
	struct code_space *space;
	uint64_t pc, sp;
	bool returned;  /* pc is a return address */
	uint64_t registers[EH_RETURN];
	uint32_t known; /* which of them */
	uint64_t floor; /* where gdb's call found its return address; the end of memory: on another stack */
	uint64_t stale; /* what lies below it on the stack, and in no frame that is told, is of earlier calls */
	uint64_t window; /* the address of the bytes that were read */
	size_t window_len;
	uint8_t bytes[WINDOW_BYTES];
};

static bool read_word(struct walk *walk, uint64_t address, uint64_t *word)
{
	uint64_t skipped = address - walk->window;

	if (skipped >= WINDOW_BYTES || skipped + WORD > walk->window_len) {
		uint64_t left = address < walk->floor ? walk->floor - address : WINDOW_BYTES;
		walk->window = address;
		walk->space->read(walk->space->context, address, walk->bytes, left < WINDOW_BYTES ? left : WINDOW_BYTES,
			   &walk->window_len);
		skipped = 0;
	}
	if (walk->window_len < WORD)
		return false;
	memcpy(word, walk->bytes + skipped, WORD);
	return true;
}

/* One stack is one stretch of memory. */
static void find_floor(struct walk *walk)
{
	uint64_t floor = walk->space->call_floor;
	bool same = walk->sp <= floor && regions_unbroken(walk->space->regions, walk->sp, floor) == floor;

	walk->floor = same ? floor : UINT64_MAX;
}

/* A register of the frame at hand. */
static bool get(const struct walk *walk, uint8_t number, uint64_t *value)
{
	*value = number == EH_SP ? walk->sp : walk->registers[number];
	return number == EH_SP || walk->known >> number & 1;
}

/* Where the frame keeps a register of its caller's. */
static bool place_of(const struct walk *walk, const struct eh_place *place, uint64_t cfa, uint64_t *at)
{
	*at = cfa;
	if (place->kind != EH_AT_CFA && !(place->kind == EH_AT && get(walk, place->base, at)))
		return false;
	*at += (uint64_t)(int64_t)place->offset;
	return true;
}

/* To the caller, which goes on at `pc`. */
static void leave(struct walk *walk, const struct eh_row *row, uint64_t cfa, uint64_t pc)
{
	uint64_t registers[EH_RETURN], at;
	uint32_t known = 0;

	/* The others are its callee's own. */
	for (uint32_t left = row->signal ? (1u << EH_RETURN) - 1 : ARCH_SAVED; left; left &= left - 1) {
		uint8_t i = (uint8_t)__builtin_ctz(left);
		const struct eh_place *place = &row->saved[i];
		bool has = place->kind == EH_SAME ? get(walk, i, &registers[i]) :
			   place_of(walk, place, cfa, &at) && read_word(walk, at, &registers[i]);
		known |= (uint32_t)has << i;
	}
	walk->sp = row->signal && known >> EH_SP & 1 ? registers[EH_SP] : cfa;
	walk->pc = pc;
	walk->known = known;
	for (uint32_t left = known; left; left &= left - 1)
		walk->registers[__builtin_ctz(left)] = registers[__builtin_ctz(left)];
	if (row->signal) /* its handler may have had a stack of its own */
		find_floor(walk);
}

/* Where a direct call leads, by way of a stub too; 0: that cannot be read. */
static uint64_t target_of(struct walk *walk, const struct code *call)
{
	uint64_t to;
	size_t done;

	if (!call->slot)
		return call->target;
	return walk->space->read(walk->space->context, call->slot, (uint8_t *)&to, WORD, &done) == 0 ? to : 0;
}

/* Whether a call that returns to `address` entered the frame's function. */
static bool entered_by(struct walk *walk, uint64_t address, const struct eh_row *row)
{
	const struct code *call = code_at(walk->space, address, true);
	uint8_t stub[LONGEST_STUB];
	size_t done;

	if (!call || call->call != CALL_DIRECT)
		return call && call->call == CALL_INDIRECT;
	uint64_t target = target_of(walk, call);
	/* Or the linker is looking for it. */
	return target == row->start || (call->slot && walk->space->read(walk->space->context, target, stub, sizeof(stub), &done) == 0 &&
					arch_is_unbound(stub));
}

/* Whether a caller that finds its frame by the frame pointer finds one at `fp`. */
static bool is_frame(struct walk *walk, uint64_t caller, uint64_t fp, uint64_t cfa)
{
	const struct code *code = code_at(walk->space, caller, true);
	uint64_t to;

	if (!code || !code->has_row || code->row.cfa_register != EH_FP || code->row.indirect)
		return true;
	uint64_t slot = fp + (uint64_t)(int64_t)code->row.cfa_offset - WORD;
	if (fp < cfa || slot >= walk->floor)
		return fp >= cfa && slot == walk->floor;
	const struct code *next = read_word(walk, slot, &to) ? code_at(walk->space, to, true) : NULL;
	return next && next->call != CALL_NONE;
}

/* Whether a frame whose return address `to` stands in `slot` keeps a frame pointer there that its caller can need. */
static bool keeps_frame(struct walk *walk, const struct eh_row *row, uint64_t slot, uint64_t to)
{
	uint64_t fp, at, cfa = slot + WORD;

	return !place_of(walk, &row->saved[EH_FP], cfa, &at) || !read_word(walk, at, &fp) ||
	       is_frame(walk, to, fp, cfa);
}

/* Looks for the frame's return address above the stack pointer. */
static bool scan(struct walk *walk, const struct eh_row *row, uint64_t *slot)
{
	uint64_t to, high = walk->sp + SCAN_BYTES < walk->floor ? walk->sp + SCAN_BYTES : walk->floor;

	*slot = walk->sp > walk->stale ? walk->sp : walk->stale;
	for (; *slot < high && read_word(walk, *slot, &to); *slot += WORD)
		if (to >= PAGE_BYTES && entered_by(walk, to, row) && keeps_frame(walk, row, *slot, to))
			return true;
	return false;
}

/* The same for a function of which nothing is told, not even where it begins.  `start` out: that, where a direct call
 * tells it: the one that leads nearest before the instruction.  Else an indirect call will do. */
static bool scan_untold(struct walk *walk, uint64_t *found, uint64_t *start)
{
	const struct regions *regions = walk->space->regions;
	const struct region *region = regions_find(regions, walk->pc);
	uint64_t slot = walk->sp > walk->stale ? walk->sp : walk->stale, to;
	uint64_t high = walk->sp + SCAN_BYTES < walk->floor ? walk->sp + SCAN_BYTES : walk->floor;
	uint64_t last = walk->pc - walk->returned;

	*found = *start = 0;
	for (; slot < high && read_word(walk, slot, &to); slot += WORD) {
		const struct code *call = to >= PAGE_BYTES ? code_at(walk->space, to, true) : NULL;
		if (!call || call->call == CALL_NONE)
			continue;
		if (call->call == CALL_INDIRECT) {
			*found = *found ? *found : slot;
			if (slot == walk->sp)
				return true;
			continue;
		}
		uint64_t target = target_of(walk, call);
		if (last - target < FUNCTION_BYTES && target > *start && region && target >= region->start) {
			*start = target;
			*found = slot;
		}
	}
	return *found;
}

/* The frame of such a function. */
static bool leave_untold(struct walk *walk)
{
	struct eh_row row = {0};
	uint64_t slot, to, depth, start;

	for (size_t i = 0; i < EH_REGISTERS; i++)
		row.saved[i].kind = EH_LOST;
	if (!scan_untold(walk, &slot, &start) || !read_word(walk, slot, &to))
		return false;
	if (start && code_prologue(walk->space, start, walk->pc, &depth))
		row.saved[EH_FP] = (struct eh_place){EH_AT_CFA, 0, -2 * (int32_t)WORD};
	leave(walk, &row, slot + WORD, to);
	walk->returned = true;
	return true;
}

/* The CFA of a frame whose register for it is not known. */
static bool find_cfa(struct walk *walk, const struct eh_row *row, uint64_t *cfa)
{
	int64_t above = row->cfa_offset, return_at = row->saved[EH_RETURN].offset;
	const struct code *code = code_at(walk->space, walk->pc, walk->returned);
	uint64_t slot, to;

	if (row->indirect || row->saved[EH_RETURN].kind != EH_AT_CFA)
		return false;
	if (code && code->frame) {
		*cfa = walk->sp + code->depth + (uint64_t)above;
		slot = *cfa + (uint64_t)return_at;
		if (slot == walk->floor)
			return true;
		if (slot < walk->floor && read_word(walk, slot, &to) && entered_by(walk, to, row))
			return true;
	}
	if (!scan(walk, row, &slot))
		return false;
	*cfa = slot - (uint64_t)return_at;
	return true;
}

static bool know_cfa(struct walk *walk, const struct eh_row *row, uint64_t *cfa)
{
	if (!get(walk, row->cfa_register, cfa))
		return find_cfa(walk, row, cfa);
	*cfa += (uint64_t)(int64_t)row->cfa_offset;
	return !row->indirect || read_word(walk, *cfa, cfa);
}

/* Leaves the frame as `row` tells; `to` out: where its caller goes on. */
static bool leave_told(struct walk *walk, const struct eh_row *row, uint64_t *to)
{
	uint64_t cfa, slot;

	if (!know_cfa(walk, row, &cfa) || (!row->signal && cfa <= walk->sp) ||
	    !place_of(walk, &row->saved[EH_RETURN], cfa, &slot) || slot >= walk->floor || !read_word(walk, slot, to))
		return false;
	leave(walk, row, cfa, *to);
	walk->returned = !row->signal;
	return true;
}

/* Leaves the frame at hand.  `caller` out: what to tell of its caller, or 0.  False: the end. */
static bool step(struct walk *walk, uint64_t *caller)
{
	const struct code *code = code_at(walk->space, walk->pc, walk->returned);
	uint64_t to, ignored;

	*caller = 0;
	if (!code)
		return false;
	bool has_row = code->has_row, signal = has_row && code->row.signal, left;
	if (has_row && get(walk, code->row.cfa_register, &ignored)) {
		left = leave_told(walk, &code->row, &to);
	} else {
		struct eh_row row = code->row; /* looking for it takes the place of what is kept */
		left = has_row && leave_told(walk, &row, &to);
	}
	if (left && signal) {
		*caller = to + 1;
		return true;
	}
	if (!left) {
		if (has_row || !leave_untold(walk))
			return false;
		to = walk->pc;
	}
	code = code_at(walk->space, to, true);
	if (code && code->call != CALL_NONE) {
		*caller = to;
		return true;
	}
	/* The kernel, not a call, has a handler return to the code that ends it. */
	walk->returned = false;
	code = code_at(walk->space, to, false);
	return code && code->has_row && !code->guessed && code->row.signal;
}

/* Where tables are no help: what looks like a return address. */
static size_t take_any(struct walk *walk, uint64_t callers[CALLERS_MAX])
{
	size_t count = 0;
	uint64_t at = walk->sp > walk->stale ? walk->sp : walk->stale, word;

	for (size_t i = 0; i < ANY_WORDS && at < walk->floor && read_word(walk, at, &word); i++, at += WORD) {
		const struct code *code = code_at(walk->space, word, true);
		if (code && code->call != CALL_NONE && count < CALLERS_MAX)
			callers[count++] = word;
	}
	return count;
}

size_t callers_find(struct code_space *space, const struct access *who, uint64_t callers[CALLERS_MAX])
{
	struct walk walk;
	uint64_t caller;
	size_t count = 0;

	walk.space = space;
	space->effort = CODE_EFFORT;
	walk.pc = who->pc;
	walk.sp = who->sp;
	walk.returned = false;
	walk.known = 0;
	walk.window = walk.window_len = 0;
	memset(walk.registers, 0, sizeof(walk.registers));
	find_floor(&walk);
	walk.stale = 0;
	/* The call touches the page for the first time: it has put nothing there. */
	if (walk.floor != UINT64_MAX && (who->address ^ who->sp) < PAGE_BYTES)
		walk.stale = (who->sp | (PAGE_BYTES - 1)) + 1;
	if (!ARCH_UNWINDS)
		return take_any(&walk, callers);
	for (int i = 0; i < CALLERS_MAX && step(&walk, &caller); i++)
		if (caller && !(count && callers[count - 1] == caller)) /* recursion is told once */
			callers[count++] = caller;
	return count;
}

void callers_keep(struct code_space *space, const struct access *who, uint64_t **kept)
{
	uint64_t callers[CALLERS_MAX];
	size_t count = callers_find(space, who, callers);
	uint64_t *made = realloc(*kept, (count + 1) * WORD);

	if (!made) {
		free(*kept);
		*kept = NULL;
		return;
	}
	memcpy(made, callers, count * WORD);
	made[count] = 0;
	*kept = made;
}
