/* timers.h - the program's timers.  They lie in the server and run on the program's own clock (clock.h): a
 * sleep or a wait passes at once up to the next one; while one is armed, the time that the program
 * runs is added, so that a loop that computes is interrupted, too. */
#ifndef GDB_UFFD_TIMERS_H
#define GDB_UFFD_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/python.h"

struct vessel;

/* While the program runs: from now on its time counts; what it ran since then; no more. */
void timers_begin(struct vessel *vessel);
void timers_account(struct vessel *vessel);
void timers_end(struct vessel *vessel);
/* Sends the signals of those that are due. */
void timers_fire(struct vessel *vessel);
/* Nanoseconds of running until the next one is due; UINT64_MAX: none is. */
PYTHON uint64_t timers_left(const struct vessel *vessel);

/* No more signals: their handlers are gone. */
PYTHON void timers_disarm(struct vessel *vessel);

enum passing { PASSED_WHOLE = 0, PASSED_INTERRUPTED, PASSED_TICKED, PASSED_NEVER };
/* Lets `*ns` pass for the program (FOR_EVER: no end), or less: up to a signal that it takes, or with `ticks`
 * up to a timer's descriptor that is readable.  `*ns`: what is left.  PASSED_NEVER: nothing would come. */
int timers_pass(struct vessel *vessel, int64_t *ns, bool ticks);
/* ... up to a signal of `ends` that waits for the program: true. */
bool timers_pass_until(struct vessel *vessel, int64_t *ns, uint64_t ends);

#endif
