/* proc.h - files of /proc/PID. */
#ifndef GDB_UFFD_PROC_H
#define GDB_UFFD_PROC_H

#include <sys/types.h>

#include "kernel/fail.h"

/* A descriptor of /proc/PID/`name`; `flags`: O_*, with O_CLOEXEC.  Or -errno. */
int proc_open(pid_t pid, const char *name, int flags, struct error *error);

#endif
