/* refuse.h - system calls that are refused: what the program sees, and what the report tells. */
#ifndef GDB_UFFD_REFUSE_H
#define GDB_UFFD_REFUSE_H

#include <stdint.h>

struct registers;
struct system_call;
struct vessel;

/* Notes a refusal for the report; returns -error. */
int64_t refuse_note(struct vessel *vessel, const struct system_call *call, int error);
/* At a ptrace event: the call is not made, the program sees `error`; the report names the call. */
int refuse_call(struct vessel *vessel, struct registers *regs, int error);
/* A descriptor that is not there: named in the report when it was recorded. */
int64_t refuse_descriptor(struct vessel *vessel, const struct system_call *call, int64_t descriptor);

#endif
