/* wait.h - until the vessel stops, or something else is to be done. */
#ifndef GDB_UFFD_WAIT_H
#define GDB_UFFD_WAIT_H

#include "kernel/python.h"

struct run;
struct vessel;

/* After run_resume.  `run`, out, says what it was; with RUN_CONTROL (`control_fd` is readable) and RUN_OUTPUT the
 * vessel runs on. */
PYTHON int wait_vessel(struct vessel *vessel, int control_fd, struct run *run);

#endif
