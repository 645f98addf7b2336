/* catch.h - stops at system calls that the user wants to see: before the policy decides, and behind. */
#ifndef GDB_UFFD_CATCH_H
#define GDB_UFFD_CATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/python.h"

#define CATCH_CALLS 1024 /* numbers that can be told apart; no architecture has so many */

struct run;
struct vessel;

struct catching {
	bool on, all;
	bool told;         /* the entry that the vessel comes to next was told already */
	uint64_t told_pc;  /* where it stood then, before the instruction; 0: nowhere */
	int64_t call;      /* the number of the call under way */
	uint64_t wanted[CATCH_CALLS / 64];
};

PYTHON void catch_nothing(struct vessel *vessel);
PYTHON void catch_everything(struct vessel *vessel);
PYTHON void catch_one(struct vessel *vessel, uint64_t nr);

/* Inside the native part. */
/* Whether a stop beside a system call is at its entry. */
bool catch_is_entry(pid_t pid);
/* At a resume. */
int catch_begin(struct vessel *vessel);
/* At a stop beside a call.  1: `run` tells of it; 0: nothing to tell. */
int catch_call(struct vessel *vessel, struct run *run);
/* Behind a call that the policy made for it. */
int catch_return(struct vessel *vessel, struct run *run);

#endif
