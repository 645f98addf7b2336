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
int64_t answer_path(struct vessel *vessel, const struct system_call *call);
int64_t answer_descriptor(struct vessel *vessel, const struct system_call *call);
int64_t answer_transfer(struct vessel *vessel, const struct system_call *call);

int64_t answer_channel(struct vessel *vessel, const struct system_call *call);
int64_t answer_silent(struct vessel *vessel, const struct system_call *call);
int64_t answer_message(struct vessel *vessel, const struct system_call *call);
int64_t answer_epoll(struct vessel *vessel, const struct system_call *call);

/* A signal has ended the wait, and is on its way: what the program sees, if it comes back at all. */
int64_t answer_interrupted(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* The call waits for ever: ANSWER_WAITS.  `address`: of its futex. */
int64_t answer_told(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* ... unless a timer ends it. */
int64_t answer_waits(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* A wait of `ns` is over without what it was for: `result`; but whoever waits for days, again and again, waits for
 * somebody who does not run. */
int64_t answer_over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result);
/* After a look at descriptors that found nothing: they are waited for `*ns`.  False: look again. */
bool answer_nothing_ready(struct vessel *vessel, const struct system_call *call, int64_t *ns, uint64_t descriptors,
			  int64_t *result);
#define FOR_EVER INT64_MAX

struct opened;
/* Between the program and itself.  How a descriptor is ready (POLLIN ...); NULL: POLLNVAL. */
short channel_ready(struct vessel *vessel, struct opened *file);
/* The descriptor's file, also where it is the other end of what was taken for a pipe; or NULL. */
struct opened *channel_find(struct vessel *vessel, int number);
/* Whether it may be a recorded descriptor: nothing comes from it, and the report tells. */
bool channel_is_silent(struct vessel *vessel, int number);
/* A read of a descriptor that has no file: of one that nothing comes from. */
int64_t silent_read(struct vessel *vessel, const struct system_call *call);
/* Nothing is there, or no room, and nobody else could change that: -EAGAIN, or a wait. */
int64_t channel_later(struct vessel *vessel, const struct system_call *call, bool at_once);
/* A recorded descriptor that may be of that kind is taken for it, and the report tells; or NULL. */
struct opened *channel_adopt(struct vessel *vessel, int number, int kind);
/* Whether an epoll's descriptor has something to tell. */
bool epoll_is_ready(struct vessel *vessel, struct opened *file);
/* The part that a read and a write of the bytes at `at` come to. */
int64_t channel_read(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		     uint64_t len);
int64_t channel_write(struct vessel *vessel, const struct system_call *call, struct opened *file, uint64_t at,
		      uint64_t len);

/* The clock: nanoseconds of `clock` now (clock_gettime(2)), and time that passes for the program
 * while it sleeps.  -EINVAL for a clock that there is not. */
int64_t answer_clock(struct vessel *vessel, int clock, int64_t *ns);
void answer_pass(struct vessel *vessel, uint64_t ns);
/* The nanoseconds of a struct timespec in the program's memory; -EFAULT, -EINVAL. */
int answer_load_timespec(struct vessel *vessel, uint64_t address, int64_t *ns);

/* A descriptor that is not there: named in the report when it was recorded. */
int64_t answer_bad_descriptor(struct vessel *vessel, const struct system_call *call, int64_t descriptor);

/* What the program wrote to its stdout and stderr. */
int answer_output(struct vessel *vessel, const void *bytes, uint64_t len);

#endif
