/* user.h - the program's memory as the kernel sees it: through its protections, with what is
 * written counted as the program's.  The vessel stands still: at a ptrace stop or in a call. */
#ifndef GDB_UFFD_USER_H
#define GDB_UFFD_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

struct pager;
struct system_call;
struct vessel;

/* All of it, or -EFAULT. */
int user_load(struct pager *pager, uint64_t address, void *to, size_t len);
/* The string with its null byte: its length without.  -EFAULT; -ENAMETOOLONG: it does not fit. */
int user_load_string(struct pager *pager, uint64_t address, char *to, size_t room);
/* All of it, or -EFAULT (what lay before the bad page was written). */
PYTHON int user_store(struct pager *pager, uint64_t address, const void *from, size_t len);

/* Feeds the pages that a system call names, and lifts the write protection of those that the
 * kernel will write: with UFFD_USER_MODE_ONLY its own accesses wait for nobody. */
void user_make_present(struct pager *pager, uint64_t address, uint64_t len, bool written);
void user_prepare(struct vessel *vessel, const struct system_call *call);
/* The same for the frame that the kernel pushes for a signal handler, and pops. */
void user_prepare_stack(struct vessel *vessel);

#endif
