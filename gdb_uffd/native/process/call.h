/* call.h - the system call that the vessel stands at. */
#ifndef GDB_UFFD_CALL_H
#define GDB_UFFD_CALL_H

#include <stdint.h>

#include "kernel/arch.h"
#include "table/rules.h"

struct run;
struct vessel;

struct system_call call_of(const struct registers *regs, int table);

/* At a ptrace event: the call is not made; the program sees `result`. */
int call_skip(struct vessel *vessel, struct registers *regs, int64_t result);
/* Makes it, with the registers as they are given; out: the registers behind it, and its result. */
int call_finish(struct vessel *vessel, struct registers *regs, int64_t *result);
/* A call that only the vessel can make, with registers changed for the kernel, and the program's own afterwards. */
int call_with(struct vessel *vessel, struct registers *regs, uint64_t first, uint64_t second);
/* Makes vessel->redo: the vessel stands at its call's entry ... */
int call_redo(struct vessel *vessel, struct registers *regs);
/* ... or before the instruction; afterwards at the exit. */
int call_redo_from(struct vessel *vessel, struct registers *regs);
/* `run` tells of the call that goes no further. */
void call_waits(struct vessel *vessel, struct run *run);
/* Back before the instruction: whoever resumes here comes here again. */
int call_stand_before(struct vessel *vessel, struct registers *regs, struct run *run);
/* The vessel stands before its call, which `run` tells of. */
int call_stop_before(struct vessel *vessel, struct registers *regs, struct run *run);
/* From the filter's event, or a call's entry, to a stop by a signal.  1, or an error. */
int call_leave(struct vessel *vessel, struct run *run);

#endif
