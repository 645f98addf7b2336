/* answer.h - system calls that the server answers: who the program was, what time it is for it,
 * files that it may read, what it prints.  Nothing outside the server changes. */
#ifndef GDB_UFFD_ANSWER_H
#define GDB_UFFD_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

struct system_call;
struct vessel;

/* What the program sees: a result, or a negative errno. */
int64_t answer_call(struct vessel *vessel, const struct system_call *call);

/* The parts of it; ANSWER_NOT_MINE when it is none of theirs. */
#define ANSWER_NOT_MINE INT64_MIN
/* ... ANSWER_LET: the kernel is to carry it out; ANSWER_WAITS: it would wait for ever. */
#define ANSWER_LET (INT64_MIN + 1)
#define ANSWER_WAITS (INT64_MIN + 2)
#define ANSWER_REDO (INT64_MIN + 3) /* the kernel makes vessel->redo instead, under ptrace */
int64_t answer_identity(struct vessel *vessel, const struct system_call *call);
int64_t answer_wait(struct vessel *vessel, const struct system_call *call);
int64_t answer_time(struct vessel *vessel, const struct system_call *call);
int64_t answer_timer(struct vessel *vessel, const struct system_call *call);
int64_t answer_path(struct vessel *vessel, const struct system_call *call);
int64_t answer_descriptor(struct vessel *vessel, const struct system_call *call);
int64_t answer_transfer(struct vessel *vessel, const struct system_call *call);

int64_t answer_channel(struct vessel *vessel, const struct system_call *call);
int64_t answer_silent(struct vessel *vessel, const struct system_call *call);
int64_t answer_message(struct vessel *vessel, const struct system_call *call);
int64_t answer_epoll(struct vessel *vessel, const struct system_call *call);

#endif
