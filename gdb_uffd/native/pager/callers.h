/* callers.h - who called whom when the vessel's thread touched a page: its frames, by what the modules say of them. */
#ifndef GDB_UFFD_CALLERS_H
#define GDB_UFFD_CALLERS_H

#include "pager/code.h"
#include "table/pages.h"

#define CALLERS_MAX 64

/* The return addresses of the frames of the thread that sleeps in `who`, innermost first, at most CALLERS_MAX; of a
 * frame that a signal interrupted, the byte behind the first one of its instruction.  One that repeats is told once.
 * How many.
 *
 * Nothing but the program counter and the stack pointer is known of the thread.  A frame that is told by the stack
 * pointer is exact, and so are those above it.  One that is told by a register that no frame below has saved, or of
 * which nothing is told, is looked for: a return address of a call that leads to its function.  The list ends where
 * none is found, and where gdb's call began. */
size_t callers_find(struct code_space *space, const struct access *who, uint64_t callers[CALLERS_MAX]);
/* The same, kept: with a zero behind the last, in place of what `*kept` (or NULL) holds.  NULL: no memory. */
void callers_keep(struct code_space *space, const struct access *who, uint64_t **kept);

#endif
