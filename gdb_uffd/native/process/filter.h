/* filter.h - the seccomp filter that the rules come to. */
#ifndef GDB_UFFD_FILTER_H
#define GDB_UFFD_FILTER_H

#include <stdbool.h>

struct sock_fprog;
struct vessel;

/* The filter's instructions into `program`, which has room for `room`; -E2BIG.  `notify`: whether
 * there is a listener for user notifications. */
int filter_build(const struct vessel *vessel, struct sock_fprog *program, unsigned room, bool notify);

#endif
