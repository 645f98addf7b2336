/* rules.h - what becomes of each system call, by its number; and what is told of those that were refused. */
#ifndef GDB_UFFD_RULES_H
#define GDB_UFFD_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

#define RULES 512 /* PYTHON; system-call numbers from 0 that a rule can be given for */

PYTHON enum policy_action {
	POLICY_REFUSE = 0, /* the program sees -result (ENOSYS for 0); it is reported */
	POLICY_RUN = 1,    /* the kernel carries it out, untouched where that can be */
	POLICY_LET = 2,    /* the kernel carries it out, and is changed by it */
	POLICY_ANSWER = 3, /* the server answers it */
	POLICY_TRACE = 4,  /* it is decided at a ptrace event */
	POLICY_RESULT = 5, /* the program sees `result`; nothing is done */
};

PYTHON enum policy_level { LEVEL_NONE = 0, LEVEL_SAFE = 1, LEVEL_ALL = 2 };

PYTHON enum argument_kind {
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

PYTHON struct rule {
	uint8_t action; /* enum policy_action */
	bool traced;    /* stops at a ptrace event whatever the action */
	int16_t result;
	uint8_t kind[6]; /* enum argument_kind */
	uint8_t handler; /* who answers it, or decides (policy_handler) */
	uint16_t size[6];
};

PYTHON struct policy {
	struct rule rules[RULES];
	int level; /* enum policy_level */
	bool read_files, real_clock, ignore_locks;
};

/* One system call of the program. */
PYTHON struct system_call {
	uint64_t nr;
	uint64_t args[6];
	uint64_t pc; /* behind the instruction */
	int table;   /* enum call_table */
};

/* OWN: this architecture's; the others are of 32-bit programs, or older ways in. */
PYTHON enum call_table { TABLE_OWN = 0, TABLE_I386 = 1, TABLE_X32 = 2, TABLE_VSYSCALL = 3, TABLE_ARM = 4 };

#define REFUSED_MAX 64 /* PYTHON */
#define REFUSED_BYTES 256
#define ALIKE_MAX 8

/* Memory that an argument pointed to when the call was refused. */
PYTHON struct captured {
	uint8_t argument; /* its number */
	bool cut;         /* there was more */
	uint16_t len;
	uint8_t bytes[REFUSED_BYTES];
};

PYTHON struct refused {
	struct system_call call;
	int error;      /* the errno that the program saw; 0: it was told that it went well */
	uint32_t times;  /* how often */
	uint32_t others; /* refusals of the same call with other arguments, beyond ALIKE_MAX */
	struct captured memory[2];
};

/* NULL: there is none for that table or number. */
static inline const struct rule *rules_find(const struct policy *policy, const struct system_call *call)
{
	return call->table == TABLE_OWN && call->nr < RULES ? &policy->rules[call->nr] : NULL;
}

#endif
