/* eh.h - the instructions of a CIE and an FDE, made up to one place (DWARF 5, 6.4.2). */
#ifndef GDB_UFFD_EH_H
#define GDB_UFFD_EH_H

#include "pager/eh_frame.h"

/* A reader that stays in [at, end); `bad` once it would not have.  `cut`: there was more. */
struct eh_bytes {
	const uint8_t *at, *end;
	bool cut, bad;
};

uint64_t eh_fixed(struct eh_bytes *bytes, size_t len); /* little endian */
uint64_t eh_unsigned(struct eh_bytes *bytes);          /* LEB128 */
int64_t eh_signed(struct eh_bytes *bytes);

/* What a CIE multiplies by. */
struct eh_factors {
	uint64_t code;
	int64_t data;
};

/* Fills in the row of `pc`; `row` has the function's start, and nothing saved.  -EINVAL: it makes no sense, or
 * is told in a way that is not followed. */
int eh_program(const struct eh_factors *factors, struct eh_bytes initial, struct eh_bytes program, uint64_t pc,
	       struct eh_row *row);

#endif
