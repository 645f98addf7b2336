/* clock.h - the recorded clock: the program's time. */
#ifndef GDB_UFFD_CLOCK_H
#define GDB_UFFD_CLOCK_H

#include <stdint.h>

struct vessel;

#define FOR_EVER INT64_MAX
#define CLOCK_LONGEST_NS (INT64_MAX / 4)

/* The clock: nanoseconds of `clock` now (clock_gettime(2)), and time that passes for the program
 * while it sleeps.  -EINVAL for a clock that there is not. */
int64_t clock_now(struct vessel *vessel, int clock, int64_t *ns);
void clock_pass(struct vessel *vessel, uint64_t ns);
/* The nanoseconds of a struct timespec in the program's memory; -EFAULT, -EINVAL. */
int clock_load_timespec(struct vessel *vessel, uint64_t address, int64_t *ns);

#endif
