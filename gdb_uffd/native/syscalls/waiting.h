/* waiting.h - a call that waits, of a program in which nobody else runs. */
#ifndef GDB_UFFD_WAITING_H
#define GDB_UFFD_WAITING_H

#include <stdbool.h>
#include <stdint.h>

struct system_call;
struct vessel;

/* A signal has ended the wait, and is on its way: what the program sees, if it comes back at all. */
int64_t waiting_interrupted(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* The call waits for ever: ANSWER_WAITS.  `address`: of its futex. */
int64_t waiting_told(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* ... unless a timer ends it. */
int64_t waiting_for_ever(struct vessel *vessel, const struct system_call *call, uint64_t address);
/* A wait of `ns` is over without what it was for: `result`; but whoever waits for days, again and again, waits for
 * somebody who does not run. */
int64_t waiting_over(struct vessel *vessel, const struct system_call *call, int64_t ns, int64_t result);
/* After a look at descriptors that found nothing: they are waited for `*ns`.  False: look again. */
bool waiting_nothing_ready(struct vessel *vessel, const struct system_call *call, int64_t *ns,
			   uint64_t descriptors, int64_t *result);

#endif
