#include "pager/eh.h"

#include <errno.h>
#include <string.h>

#define REMEMBERED_MAX 8

/* DW_CFA_*: DWARF 5, table 7.29; the GNU ones: LSB 5.0 Core, 10.6. */
#define ADVANCE 0x40
#define OFFSET 0x80
#define RESTORE 0xc0
enum {
	NOP = 0x00, SET_LOC = 0x01, ADVANCE_1 = 0x02, ADVANCE_2 = 0x03, ADVANCE_4 = 0x04,
	OFFSET_EXTENDED = 0x05, RESTORE_EXTENDED = 0x06, UNDEFINED = 0x07, SAME_VALUE = 0x08,
	REGISTER = 0x09, REMEMBER = 0x0a, RESTORE_STATE = 0x0b, DEF_CFA = 0x0c,
	DEF_CFA_REGISTER = 0x0d, DEF_CFA_OFFSET = 0x0e, DEF_CFA_EXPRESSION = 0x0f,
	EXPRESSION = 0x10, OFFSET_EXTENDED_SF = 0x11, DEF_CFA_SF = 0x12, DEF_CFA_OFFSET_SF = 0x13,
	VAL_OFFSET = 0x14, VAL_OFFSET_SF = 0x15, VAL_EXPRESSION = 0x16, GNU_ARGS_SIZE = 0x2e,
	GNU_NEGATIVE_OFFSET = 0x2f,
};

/* DW_OP_*: DWARF 5, table 7.9. */
#define OP_DEREF 0x06
#define OP_BREG(n) (0x70 + (n))
#define OP_LIT0 0x30

struct state {
	struct eh_row row, begun; /* as it is; as the CIE leaves it */
	struct eh_row remembered[REMEMBERED_MAX];
	size_t depth;
	const struct eh_factors *factors;
	uint64_t at, pc;
	bool in_cie;
};

uint64_t eh_fixed(struct eh_bytes *bytes, size_t len)
{
	uint64_t value = 0;

	if ((size_t)(bytes->end - bytes->at) < len) {
		bytes->bad = true;
		bytes->at = bytes->end;
		return 0;
	}
	for (size_t i = 0; i < len; i++)
		value |= (uint64_t)bytes->at[i] << (8 * i);
	bytes->at += len;
	return value;
}

static uint64_t leb(struct eh_bytes *bytes, bool is_signed)
{
	uint64_t value = 0;
	unsigned int shift = 0;
	uint8_t byte;

	do {
		byte = (uint8_t)eh_fixed(bytes, 1);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80 && shift < 128);
	if (byte & 0x80)
		bytes->bad = true;
	if (is_signed && shift < 64 && byte & 0x40)
		value |= ~UINT64_C(0) << shift;
	return value;
}

uint64_t eh_unsigned(struct eh_bytes *bytes)
{
	return leb(bytes, false);
}

int64_t eh_signed(struct eh_bytes *bytes)
{
	return (int64_t)leb(bytes, true);
}

/* An offset that no frame has ends the matter. */
static int32_t narrow(struct eh_bytes *bytes, int64_t value)
{
	if (value != (int32_t)value)
		bytes->bad = true;
	return (int32_t)value;
}

static int32_t plain(struct eh_bytes *bytes)
{
	uint64_t value = eh_unsigned(bytes);

	return narrow(bytes, value > INT32_MAX ? INT64_MAX : (int64_t)value);
}

static int32_t factored(const struct state *state, struct eh_bytes *bytes, uint64_t value)
{
	return narrow(bytes, (int64_t)(value * (uint64_t)state->factors->data));
}

/* Of a register that is not kept account of nothing is told. */
static void put(struct state *state, uint64_t number, uint8_t kind, uint8_t base, int32_t offset)
{
	if (number < EH_REGISTERS)
		state->row.saved[number] = (struct eh_place){kind, base, offset};
}

static struct eh_bytes block(struct eh_bytes *bytes)
{
	uint64_t len = eh_unsigned(bytes);

	if (len > (uint64_t)(bytes->end - bytes->at)) {
		bytes->bad = true;
		len = 0;
	}
	struct eh_bytes inner = {bytes->at, bytes->at + len, false, false};
	bytes->at += len;
	return inner;
}

/* DW_OP_breg of one of the sixteen, and its offset. */
static bool based(struct eh_bytes *inner, uint8_t *base, int32_t *offset)
{
	uint64_t op = eh_fixed(inner, 1);

	if (inner->bad || op < OP_BREG(0) || op >= OP_BREG(EH_RETURN))
		return false;
	*base = (uint8_t)(op - OP_BREG(0));
	*offset = narrow(inner, eh_signed(inner));
	return !inner->bad;
}

/* What binutils' x86-64 linker says of a PLT (bfd/elfxx-x86.c, elf_x86_64_eh_frame_plt): 8 above the stack pointer,
 * and once more behind the push that stands at byte N of each entry. */
static bool is_plt(const struct eh_bytes *inner, uint64_t pc, int32_t *offset)
{
	static const uint8_t head[] = {OP_BREG(EH_SP), 8, OP_BREG(EH_RETURN), 0, OP_LIT0 + 15, 0x1a};
	static const uint8_t tail[] = {0x2a, OP_LIT0 + 3, 0x24, 0x22};
	size_t len = (size_t)(inner->end - inner->at);

	if (len != sizeof(head) + 1 + sizeof(tail) || memcmp(inner->at, head, sizeof(head)) ||
	    memcmp(inner->at + sizeof(head) + 1, tail, sizeof(tail)))
		return false;
	*offset = 8 + (((pc & 15) + OP_LIT0 >= inner->at[sizeof(head)]) << 3);
	return true;
}

/* A CFA by an expression: of the kinds that compilers and linkers make (a stack that was aligned anew, a PLT, a
 * signal's frame). */
static int define_cfa(struct state *state, struct eh_bytes inner)
{
	struct eh_row *row = &state->row;

	row->indirect = false;
	if (is_plt(&inner, state->pc, &row->cfa_offset)) {
		row->cfa_register = EH_SP;
		return 0;
	}
	if (!based(&inner, &row->cfa_register, &row->cfa_offset))
		return -EINVAL;
	row->indirect = inner.at < inner.end;
	bool whole = !row->indirect || (inner.end - inner.at == 1 && *inner.at == OP_DEREF);
	return whole ? 0 : -EINVAL;
}

static void set_cfa(struct state *state, struct eh_bytes *bytes, uint64_t number, int32_t offset)
{
	if (number >= EH_RETURN)
		bytes->bad = true;
	state->row.cfa_register = (uint8_t)number;
	state->row.cfa_offset = offset;
	state->row.indirect = false;
}

static void restore(struct state *state, struct eh_bytes *bytes, uint64_t number)
{
	if (state->in_cie)
		bytes->bad = true;
	else if (number < EH_REGISTERS)
		state->row.saved[number] = state->begun.saved[number];
}

static void advance(struct state *state, uint64_t by)
{
	uint64_t step, at;

	/* What is beyond all addresses is beyond `pc`. */
	if (__builtin_mul_overflow(by, state->factors->code, &step) || __builtin_add_overflow(state->at, step, &at))
		at = UINT64_MAX;
	state->at = at;
}

static void define(struct state *state, struct eh_bytes *bytes, uint8_t op)
{
	uint64_t number;
	int32_t offset;

	switch (op) {
	case DEF_CFA:
		number = eh_unsigned(bytes);
		offset = plain(bytes);
		set_cfa(state, bytes, number, offset);
		break;
	case DEF_CFA_SF:
		number = eh_unsigned(bytes);
		offset = factored(state, bytes, (uint64_t)eh_signed(bytes));
		set_cfa(state, bytes, number, offset);
		break;
	case DEF_CFA_REGISTER:
		set_cfa(state, bytes, eh_unsigned(bytes), state->row.cfa_offset);
		break;
	case DEF_CFA_OFFSET:
		state->row.cfa_offset = plain(bytes);
		break;
	case DEF_CFA_OFFSET_SF:
		state->row.cfa_offset = factored(state, bytes, (uint64_t)eh_signed(bytes));
		break;
	case DEF_CFA_EXPRESSION:
		if (define_cfa(state, block(bytes)) < 0)
			bytes->bad = true;
		break;
	default:
		bytes->bad = true;
	}
}

static void save(struct state *state, struct eh_bytes *bytes, uint8_t op)
{
	uint64_t number = eh_unsigned(bytes);
	struct eh_bytes inner;
	uint8_t base;
	int32_t offset;

	switch (op) {
	case OFFSET_EXTENDED:
		put(state, number, EH_AT_CFA, 0, factored(state, bytes, eh_unsigned(bytes)));
		break;
	case OFFSET_EXTENDED_SF:
		put(state, number, EH_AT_CFA, 0, factored(state, bytes, (uint64_t)eh_signed(bytes)));
		break;
	case GNU_NEGATIVE_OFFSET:
		put(state, number, EH_AT_CFA, 0, factored(state, bytes, 0 - eh_unsigned(bytes)));
		break;
	case RESTORE_EXTENDED:
		restore(state, bytes, number);
		break;
	case UNDEFINED:
		put(state, number, EH_LOST, 0, 0);
		break;
	case SAME_VALUE:
		put(state, number, EH_SAME, 0, 0);
		break;
	case EXPRESSION:
		inner = block(bytes);
		if (based(&inner, &base, &offset) && inner.at == inner.end)
			put(state, number, EH_AT, base, offset);
		else
			put(state, number, EH_LOST, 0, 0);
		break;
	case VAL_EXPRESSION:
		block(bytes);
		put(state, number, EH_LOST, 0, 0);
		break;
	default: /* REGISTER, VAL_OFFSET, VAL_OFFSET_SF: one number more, signed or not */
		eh_unsigned(bytes);
		put(state, number, EH_LOST, 0, 0);
	}
}

static void remember(struct state *state, struct eh_bytes *bytes, uint8_t op)
{
	if (op == REMEMBER && state->depth < REMEMBERED_MAX)
		state->remembered[state->depth++] = state->row;
	else if (op == RESTORE_STATE && state->depth)
		state->row = state->remembered[--state->depth];
	else
		bytes->bad = true;
}

/* The instruction `op`, whose operands follow. */
static void one(struct state *state, struct eh_bytes *bytes, uint8_t op)
{
	if (op >= RESTORE)
		return restore(state, bytes, op & 0x3f);
	if (op >= OFFSET)
		return put(state, op & 0x3f, EH_AT_CFA, 0, factored(state, bytes, eh_unsigned(bytes)));
	if (op >= ADVANCE)
		return advance(state, op & 0x3f);
	switch (op) {
	case NOP:
		return;
	case ADVANCE_1:
		return advance(state, eh_fixed(bytes, 1));
	case ADVANCE_2:
		return advance(state, eh_fixed(bytes, 2));
	case ADVANCE_4:
		return advance(state, eh_fixed(bytes, 4));
	case REMEMBER:
	case RESTORE_STATE:
		return remember(state, bytes, op);
	case GNU_ARGS_SIZE:
		eh_unsigned(bytes);
		return;
	case OFFSET_EXTENDED ... SAME_VALUE:
	case REGISTER:
	case EXPRESSION:
	case OFFSET_EXTENDED_SF:
	case VAL_OFFSET ... VAL_EXPRESSION:
	case GNU_NEGATIVE_OFFSET:
		return save(state, bytes, op);
	default: /* SET_LOC too: no compiler makes it */
		return define(state, bytes, op);
	}
}

static int run(struct state *state, struct eh_bytes bytes)
{
	while (bytes.at < bytes.end) {
		one(state, &bytes, *bytes.at++);
		if (bytes.bad)
			return -EINVAL;
		if (state->at > state->pc)
			return 0;
	}
	return bytes.cut ? -EINVAL : 0;
}

int eh_program(const struct eh_factors *factors, struct eh_bytes initial, struct eh_bytes program, uint64_t pc,
	       struct eh_row *row)
{
	struct state state = {.row = *row, .factors = factors, .at = row->start, .pc = pc, .in_cie = true};
	int rc = run(&state, initial);

	if (rc < 0)
		return rc;
	state.begun = state.row;
	state.at = row->start;
	state.in_cie = false;
	rc = run(&state, program);
	*row = state.row;
	return rc;
}
