/* signals.h - what a signal tells of its sender: the program is to see the recorded process, never the
 * vessel or the server. */
#ifndef GDB_UFFD_SIGNALS_H
#define GDB_UFFD_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct vessel;

/* A signal's information as the program is to see it; true when it was another. */
bool signals_mend(struct vessel *vessel, siginfo_t *info);
/* Sends `info->si_signo` to the vessel, which will see `info`. */
int signals_send(struct vessel *vessel, const siginfo_t *info);
/* The vessel stands at the stop of `signal`, which is not passed on now ... */
void signals_hold(struct vessel *vessel, int signal);
/* ... but comes again. */
void signals_release(struct vessel *vessel);
/* Bit (n - 1) for signal n. */
struct signal_sets {
	uint64_t pending, blocked, handled, ignored;
};

void signals_read(const struct vessel *vessel, struct signal_sets *sets);

#endif
