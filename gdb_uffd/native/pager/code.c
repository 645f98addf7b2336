#include "pager/code.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel/uffd.h"
#include "table/regions.h"

#define CODES 512 /* a power of two */
#define MODULES 64
#define MAPPINGS_BEFORE 64 /* of a module before the one that runs */
#define SEGMENTS_MAX 64
#define LOOK_EFFORT 64 /* of one instruction */
#define BYTES_FOR_EFFORT 256 /* of tables without a header, which are read from the beginning */
#define PROLOGUE_BYTES 96
#define FUNCTION_BYTES 2048 /* of one whose frame is guessed, before the instruction */

/* Where code lies, and the tables about it. */
struct module {
	uint64_t low, high;
	uint64_t header, len; /* .eh_frame_hdr; 0: it has none */
};

struct known {
	uint64_t layout; /* regions.code when it was learnt */
	struct module modules[MODULES];
	size_t next_module;
	struct code codes[CODES];
	uint64_t page; /* of the tables, read last; 1: none */
	uint8_t bytes[PAGE_BYTES];
};

void code_forget(struct code_space *space)
{
	free(space->known);
	space->known = NULL;
}

/* Through one page that is kept: the steps of a search lie side by side at its end. */
static int read_table(void *context, uint64_t address, void *to, size_t len)
{
	struct code_space *space = context;
	struct known *known = space->known;
	uint8_t *out = to;
	size_t done;

	while (len) {
		uint64_t page = address & ~(PAGE_BYTES - 1);
		size_t offset = (size_t)(address - page), part = PAGE_BYTES - offset;
		if (part > len)
			part = len;
		if (known->page != page) {
			known->page = 1;
			if (space->read(space->context, page, known->bytes, PAGE_BYTES, &done) < 0)
				return -EFAULT;
			known->page = page;
		}
		memcpy(out, known->bytes + offset, part);
		out += part;
		address += part;
		len -= part;
	}
	return 0;
}

/* The module whose file begins at `start`, if its code holds `pc`. */
static bool read_module(struct code_space *space, uint64_t start, uint64_t pc, struct module *module)
{
	Elf64_Phdr segments[SEGMENTS_MAX];
	Elf64_Ehdr header;
	bool based = false, holds = false;
	uint64_t bias = 0;

	if (read_table(space, start, &header, sizeof(header)) || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(segments[0]) ||
	    header.e_phnum > SEGMENTS_MAX || header.e_phoff > PAGE_BYTES ||
	    read_table(space, start + header.e_phoff, segments, header.e_phnum * sizeof(segments[0])))
		return false;
	*module = (struct module){0};
	for (size_t i = 0; i < header.e_phnum; i++) {
		const Elf64_Phdr *segment = &segments[i];
		if (segment->p_type == PT_LOAD && !based) {
			bias = start - (segment->p_vaddr & ~(PAGE_BYTES - 1));
			based = true;
		}
		if (segment->p_type == PT_LOAD && pc - (segment->p_vaddr + bias) < segment->p_memsz) {
			module->low = segment->p_vaddr + bias;
			module->high = module->low + segment->p_memsz;
			holds = true;
		}
	}
	for (size_t i = 0; i < header.e_phnum; i++) {
		if (segments[i].p_type == PT_GNU_EH_FRAME) {
			module->header = segments[i].p_vaddr + bias;
			module->len = segments[i].p_memsz;
		}
	}
	return holds;
}

/* A module's first mapping holds its header, and lies before that of its code. */
static const struct module *find_module(struct code_space *space, const struct region *region, uint64_t pc)
{
	struct known *known = space->known;

	for (size_t i = 0; i < MODULES; i++)
		if (pc - known->modules[i].low < known->modules[i].high - known->modules[i].low)
			return &known->modules[i];
	struct module *module = &known->modules[known->next_module++ % MODULES];
	const struct region *last = region;
	for (int i = 0; i < MAPPINGS_BEFORE; i++, last--) {
		if (read_module(space, last->start, pc, module))
			return module;
		if (last == space->regions->at)
			break;
	}
	*module = (struct module){.low = region->start, .high = region->end};
	return module;
}

static bool find_row(struct code_space *space, const struct region *region, uint64_t pc, struct eh_row *row)
{
	struct eh_memory memory = {read_table, space};
	const struct module *module = ARCH_UNWINDS ? find_module(space, region, pc) : NULL;

	if (!module)
		return false;
	if (module->header)
		return eh_frame_search(&memory, module->header, module->len, pc, row) == 0;
	/* Static programs have no header, and their tables are told by their file alone. */
	return space->frames.len && pc - space->frames.low < space->frames.high - space->frames.low &&
	       eh_frame_walk(&memory, space->frames.address, space->frames.len, pc, row) == 0;
}

/* A frame like those that compilers make where nothing is optimised, or where frame pointers are kept. */
static bool guess_row(struct code_space *space, const struct region *region, uint64_t pc, struct eh_row *row)
{
	uint8_t bytes[FUNCTION_BYTES];
	uint64_t len = pc - region->start < sizeof(bytes) ? pc - region->start : sizeof(bytes);
	size_t done, back = 0;

	if (space->read(space->context, pc - len, bytes, len, &done) == 0)
		back = arch_prologue_before(bytes, len);
	if (!back)
		return false;
	*row = (struct eh_row){.start = pc - back, .end = pc + 1, .cfa_register = EH_FP, .cfa_offset = 16};
	for (size_t i = 0; i < EH_REGISTERS; i++)
		row->saved[i].kind = EH_LOST;
	row->saved[EH_FP] = (struct eh_place){EH_AT_CFA, 0, -16};
	row->saved[EH_RETURN] = (struct eh_place){EH_AT_CFA, 0, -8};
	return true;
}

static void find_call(struct code_space *space, const struct region *region, struct code *code)
{
	uint8_t bytes[LONGEST_CALL], stub[LONGEST_STUB];
	size_t done;

	if (code->address - region->start < LONGEST_CALL ||
	    space->read(space->context, code->address - LONGEST_CALL, bytes, sizeof(bytes), &done) < 0)
		return;
	code->call = (uint8_t)arch_call_before(bytes, code->address, &code->target);
	if (code->call == CALL_DIRECT && space->read(space->context, code->target, stub, sizeof(stub), &done) == 0)
		code->slot = arch_stub_slot(stub, code->target);
}

bool code_prologue(struct code_space *space, uint64_t start, uint64_t pc, uint64_t *depth)
{
	uint8_t bytes[PROLOGUE_BYTES];
	uint64_t len = pc - start < sizeof(bytes) ? pc - start : sizeof(bytes);
	size_t done;

	return space->read(space->context, start, bytes, len, &done) == 0 && arch_prologue(bytes, len, depth);
}

const struct code *code_at(struct code_space *space, uint64_t address, bool returned)
{
	size_t index = (size_t)((address * 2 + returned) * 0x9e3779b97f4a7c15ull >> 32) % CODES;
	struct known *known = space->known;

	/* What can be written may have become other code. */
	if (known && known->layout == space->regions->code) {
		const struct code *code = &known->codes[index];
		if (code->address == address && code->returned == returned && !code->writable)
			return code;
	}
	const struct region *region = regions_find(space->regions, address);
	if (!region || !(region->prot & PROT_EXEC))
		return NULL;
	if (!known && !(known = space->known = calloc(1, sizeof(*known))))
		return NULL;
	if (known->layout != space->regions->code) {
		memset(known, 0, sizeof(*known));
		known->layout = space->regions->code;
	}
	uint64_t effort = LOOK_EFFORT + space->frames.len / BYTES_FOR_EFFORT;
	if (space->effort < effort)
		return NULL;
	space->effort -= effort;
	struct code *code = &known->codes[index];
	*code = (struct code){.address = address, .returned = returned, .writable = region->prot & PROT_WRITE};
	known->page = 1;
	if (returned)
		find_call(space, region, code);
	code->has_row = find_row(space, region, address - returned, &code->row);
	if (!code->has_row)
		code->has_row = code->guessed = guess_row(space, region, address, &code->row);
	if (code->has_row && code->row.cfa_register == EH_FP)
		code->frame = code_prologue(space, code->row.start, address, &code->depth);
	return code;
}
