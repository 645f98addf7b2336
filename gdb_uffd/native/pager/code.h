/* code.h - what is known of the vessel's instructions: how their frames are left, and which of them end a call. */
#ifndef GDB_UFFD_CODE_H
#define GDB_UFFD_CODE_H

#include "kernel/arch.h"
#include "kernel/python.h"
#include "pager/eh_frame.h"

struct known;
struct regions;

/* A process whose frames are followed.  `read` is as memory_read. */
PYTHON struct code_space {
	int (*read)(void *context, uint64_t address, uint8_t *to, size_t len, size_t *done);
	void *context;
	const struct regions *regions;
	uint64_t call_floor; /* where gdb's call that is under way found its return address, else 0 */
	struct { /* a module's .eh_frame, where nothing in memory leads to it; of the code in [low, high) */
		uint64_t low, high, address, len;
	} frames;
	uint64_t effort;     /* what may still be spent on looking at code: a program can lay out any number of traps */
	struct known *known; /* code.c */
};

/* Of an instruction, or of a return address: then the row is that of the call before it. */
struct code {
	uint64_t address; /* 0: nothing is kept here */
	bool returned;    /* it is a return address */
	bool has_row;
	bool frame; /* its function began with setting up a frame pointer, and `depth` bytes below that is the stack's */
	bool writable;
	bool guessed; /* ... by the instructions alone, of a function of which nothing is told */
	uint8_t call;     /* enum arch_call: the instruction right before it */
	uint64_t target;  /* where a direct call leads */
	uint64_t slot;    /* ... through a stub that jumps where this word says; 0: it is none */
	uint64_t depth;
	struct eh_row row;
};

/* Read from the vessel's memory, and kept as long as its executable mappings are what they were.  NULL: nothing
 * can run there, it would take too long, or no memory.  Good until the next call. */
const struct code *code_at(struct code_space *space, uint64_t address, bool returned);
#define CODE_EFFORT 100000ul /* of all that one fault needs; some 50 ms at the worst */

/* As `frame` and `depth` tell of the instruction at `pc` in a function that begins at `start`. */
bool code_prologue(struct code_space *space, uint64_t start, uint64_t pc, uint64_t *depth);
void code_forget(struct code_space *space);

#endif
