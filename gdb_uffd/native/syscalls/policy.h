/* policy.h - what becomes of each system call of the running program.
 *
 * A seccomp filter sorts them.  A few reach nothing and leave nothing behind: they run untouched.  Those
 * that change the address space, wait, or end the process stop at a ptrace event and are decided
 * in policy.c.  All others arrive through a user notification: the server answers them, refuses
 * them, or lets the kernel carry them out.  docs/policy.md tells which is which. */
#ifndef GDB_UFFD_POLICY_H
#define GDB_UFFD_POLICY_H

#include "kernel/python.h"

struct vessel;

/* As vessel_init: of a vessel whose system calls are decided here. */
PYTHON void policy_init(struct vessel *vessel);
/* The number of a handler (struct rule) by its name in syscalls.tbl; -ENOENT. */
PYTHON int policy_handler(const char *name);

#endif
