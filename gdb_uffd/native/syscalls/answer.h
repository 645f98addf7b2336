/* answer.h - system calls that the server answers: who the program was, what time it is for it,
 * files that it may read, what it prints.  Nothing outside the server changes. */
#ifndef GDB_UFFD_ANSWER_H
#define GDB_UFFD_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "process/vessel.h"


/* What the program sees, a result or a negative errno; or: */
#define ANSWER_NOT_MINE INT64_MIN /* it is another's */
#define ANSWER_LET (INT64_MIN + 1)   /* the kernel is to carry it out */
#define ANSWER_WAITS (INT64_MIN + 2) /* it would wait for ever */
#define ANSWER_REDO (INT64_MIN + 3)  /* the kernel makes vessel->redo instead, under ptrace */

int64_t answer_channel(struct vessel *vessel, const struct system_call *call);
int64_t answer_descriptor(struct vessel *vessel, const struct system_call *call);
int64_t answer_epoll(struct vessel *vessel, const struct system_call *call);
int64_t answer_identity(struct vessel *vessel, const struct system_call *call);
int64_t answer_limits(struct vessel *vessel, const struct system_call *call);
int64_t answer_memory(struct vessel *vessel, const struct system_call *call);
int64_t answer_message(struct vessel *vessel, const struct system_call *call);
int64_t answer_path(struct vessel *vessel, const struct system_call *call);
int64_t answer_socket(struct vessel *vessel, const struct system_call *call);
int64_t answer_time(struct vessel *vessel, const struct system_call *call);
int64_t answer_timer(struct vessel *vessel, const struct system_call *call);
int64_t answer_transfer(struct vessel *vessel, const struct system_call *call);
int64_t answer_wait(struct vessel *vessel, const struct system_call *call);

/* A part of answer_descriptor: of a recorded descriptor of which no more is known than that nothing comes from it. */
int64_t answer_silent(struct vessel *vessel, const struct system_call *call);

/* Whether a number means the program itself: 0, or its recorded PID or TID. */
static inline bool answer_is_self(const struct vessel *vessel, uint64_t who)
{
	return !(int)who || (int)who == vessel->identity.pid || (int)who == vessel->identity.tid;
}

#endif
