/* eh_frame.h - how a frame is left, from a module's .eh_frame (LSB 5.0 Core, 10.6; DWARF 5, 6.4).  Nothing here
 * believes the tables: they are read through a function that may fail, and every length has an end. */
#ifndef GDB_UFFD_EH_FRAME_H
#define GDB_UFFD_EH_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `read`: `len` bytes at `address`; 0, or anything else when they cannot be had. */
struct eh_memory {
	int (*read)(void *context, uint64_t address, void *to, size_t len);
	void *context;
};

#define EH_REGISTERS 17 /* of x86-64: sixteen, and the return address (psABI, figure 3.36) */
#define EH_FP 6
#define EH_SP 7
#define EH_RETURN 16

enum eh_kind {
	EH_SAME = 0, /* as in the frame that it called */
	EH_AT_CFA,   /* at the CFA + offset */
	EH_AT,       /* at register `base` + offset */
	EH_LOST,     /* undefined, or told in a way that is not followed */
};

struct eh_place {
	uint8_t kind, base;
	int32_t offset;
};

/* The frame of one instruction; of its function [start, end).  The CFA is the register + offset, and with
 * `indirect` what stands there. */
struct eh_row {
	uint64_t start, end;
	struct eh_place saved[EH_REGISTERS];
	int32_t cfa_offset;
	uint8_t cfa_register;
	bool indirect;
	bool signal; /* a signal handler returns to it */
};

/* The row of the instruction that holds `pc`, by the module's .eh_frame_hdr, `len` bytes at `header`.
 * 0; -ENOENT: no function is told there; -EINVAL: the tables make no sense, or are of a kind that is not known. */
int eh_frame_search(const struct eh_memory *memory, uint64_t header, uint64_t len, uint64_t pc, struct eh_row *row);
/* The same without a header, by all of .eh_frame, `len` bytes at `frames`. */
int eh_frame_walk(const struct eh_memory *memory, uint64_t frames, uint64_t len, uint64_t pc, struct eh_row *row);

#endif
