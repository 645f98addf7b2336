/* policy.h - what becomes of each system call of the running program.
 *
 * A seccomp filter sorts them.  A few reach nothing and leave nothing behind: they run untouched.  Those
 * that change the address space, wait, or end the process stop at a ptrace event and are decided
 * in policy.c.  All others arrive through a user notification: the server answers them, refuses
 * them, or lets the kernel carry them out.  docs/policy.md tells which is which. */
#ifndef GDB_UFFD_POLICY_H
#define GDB_UFFD_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "arch.h"

#define RULES 512 /* system-call numbers from 0 that a rule can be given for */

enum policy_action {
	POLICY_REFUSE = 0, /* the program sees -result (ENOSYS for 0); it is reported */
	POLICY_RUN = 1,    /* the kernel carries it out, untouched where that can be */
	POLICY_LET = 2,    /* the kernel carries it out, and is changed by it */
	POLICY_ANSWER = 3, /* answer.c */
	POLICY_TRACE = 4,  /* policy.c */
	POLICY_RESULT = 5, /* the program sees `result`; nothing is done */
};

enum policy_level { LEVEL_NONE = 0, LEVEL_SAFE = 1, LEVEL_ALL = 2 };

enum argument_kind {
	ARGUMENT_NUMBER = 0,
	ARGUMENT_PATH,          /* a string */
	ARGUMENT_READ,          /* bytes that the kernel reads; the next argument counts them */
	ARGUMENT_WRITE,         /* ... writes */
	ARGUMENT_READ_VECTOR,   /* struct iovec; the next argument counts them */
	ARGUMENT_WRITE_VECTOR,
	ARGUMENT_READ_MESSAGE,  /* struct msghdr */
	ARGUMENT_WRITE_MESSAGE,
	ARGUMENT_ADDRESS,       /* struct sockaddr; the next argument is its length */
	ARGUMENT_WRITE_ADDRESS, /* ... points to its length */
	ARGUMENT_READ_FIXED,    /* `size` bytes */
	ARGUMENT_WRITE_FIXED,
	ARGUMENT_BOTH_FIXED,
};

struct rule {
	uint8_t action; /* enum policy_action */
	bool traced;    /* stops at a ptrace event whatever the action */
	int16_t result;
	uint8_t kind[6]; /* enum argument_kind */
	uint16_t size[6];
};

struct policy {
	struct rule rules[RULES];
	int level; /* enum policy_level */
	bool read_files, real_clock, ignore_locks;
};

/* One system call of the program. */
struct system_call {
	uint64_t nr;
	uint64_t args[6];
	uint64_t pc; /* behind the instruction */
	int table;   /* enum call_table */
};

/* OWN: this architecture's; the others are of 32-bit programs, or older ways in. */
enum call_table { TABLE_OWN = 0, TABLE_I386 = 1, TABLE_X32 = 2, TABLE_VSYSCALL = 3, TABLE_ARM = 4 };

#define REFUSED_MAX 64
#define REFUSED_BYTES 256
#define ALIKE_MAX 8

/* Memory that an argument pointed to when the call was refused. */
struct captured {
	uint8_t argument; /* its number */
	bool cut;         /* there was more */
	uint16_t len;
	uint8_t bytes[REFUSED_BYTES];
};

struct refused {
	struct system_call call;
	int error;      /* the errno that the program saw; 0: it was told that it went well */
	uint32_t times;  /* how often */
	uint32_t others; /* refusals of the same call with other arguments, beyond ALIKE_MAX */
	struct captured memory[2];
};

struct sock_fprog;
struct vessel;
struct run;

const struct rule *policy_rule(const struct vessel *vessel, const struct system_call *call);
/* The filter's instructions into `program`, which has room for `room`; -E2BIG.  `notify`: whether
 * there is a listener for user notifications. */
int policy_filter(const struct vessel *vessel, struct sock_fprog *program, unsigned room, bool notify);

/* Decides about the call that the vessel stands before at its ptrace event `data`.  1: it goes no
 * further, `run` says why; 0: let it go. */
int policy_traced(struct vessel *vessel, unsigned long data, struct run *run);

/* What a call comes to that no ptrace event is needed for.  1: `result` is what the program sees;
 * 0: the kernel carries it out; 2: it would wait for ever, or needs more memory than it may have
 * (pager->over_limit): vessel->wait_call; 3: vessel->redo is to be made instead. */
int policy_decide(struct vessel *vessel, const struct system_call *call, int64_t *result);

/* Notes a refusal for the report; returns -error. */
int64_t policy_note_refusal(struct vessel *vessel, const struct system_call *call, int error);

/* At a ptrace event: the call is not made; the program sees `result`. */
int policy_skip(struct vessel *vessel, struct registers *regs, int64_t result);
/* ... the program sees `error`; the report names the call. */
int policy_refuse(struct vessel *vessel, struct registers *regs, int error);
/* Makes vessel->redo: the vessel stands at its call's entry ... */
int policy_redo(struct vessel *vessel, struct registers *regs);
/* ... or before the instruction; afterwards at the exit. */
int policy_redo_from(struct vessel *vessel, struct registers *regs);
/* `run` tells of the call that goes no further. */
void policy_waits(struct vessel *vessel, struct run *run);
/* A call that only the vessel can make, with registers changed for the kernel, and the program's own afterwards. */
int policy_call_with(struct vessel *vessel, struct registers *regs, uint64_t first, uint64_t second);
/* The vessel stands before its call, which `run` tells of. */
int policy_stop_before(struct vessel *vessel, struct registers *regs, struct run *run);
/* Back before the instruction: whoever resumes here comes here again. */
int policy_stand_before(struct vessel *vessel, struct registers *regs, struct run *run);

#endif
