/* notify.h - seccomp user notifications (seccomp_unotify(2)): the vessel sleeps in its system call until
 * the server has answered it. */
#ifndef GDB_UFFD_NOTIFY_H
#define GDB_UFFD_NOTIFY_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/python.h"

struct vessel;

/* Whether the kernel knows them. */
PYTHON bool notify_is_available(void);
/* Takes one notification from vessel->listener and answers it.  -ENOENT: it has gone meanwhile. */
int notify_serve(struct vessel *vessel);
/* Answers one after the other, until something else happens or some milliseconds have passed: for
 * programs that ask often.  `inside`: the signal mask with SIGCHLD let in, whose handler must be
 * notify_interrupt. */
int notify_burst(struct vessel *vessel, const sigset_t *inside);
void notify_interrupt(int signal);
void notify_forget_timer(struct vessel *vessel);
/* Waits for one and lets the kernel carry it out; for the vessel's own setting-up. */
int notify_let_one(struct vessel *vessel);

#endif
