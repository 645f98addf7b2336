/* run.h - letting the vessel run, and why it stopped. */
#ifndef GDB_UFFD_RUN_H
#define GDB_UFFD_RUN_H

#include <stdint.h>

#include "kernel/python.h"

struct run;
struct vessel;

/* Lets it run; then wait_vessel until it ends with something else than CONTROL or OUTPUT. */
PYTHON int run_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high);
/* Makes the instruction beneath the planted breakpoint at `address`, before which it stands. */
PYTHON int run_step_over(struct vessel *vessel, uint64_t address);
/* What a stop means.  1: `run` is filled; 0: it runs again; negative: an error. */
int run_digest(struct vessel *vessel, int status, struct run *run);

#endif
