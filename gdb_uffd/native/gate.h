/* gate.h - the one page of ours in the vessel: a loop that runs a table of system calls. */
#ifndef GDB_UFFD_GATE_H
#define GDB_UFFD_GATE_H

#include "vessel.h"

/* Offsets in the gate's first page; the table begins in the second. */
#define GATE_NAME_AT 0x80
#define GATE_DEVICE_AT 0x90 /* "/dev/userfaultfd" */
#define GATE_FILTER_AT 0x400 /* struct sock_fprog, then its instructions: the rest of the first page */

/* A stretch of `bytes` that no recorded mapping touches, far from where mmap(2) places things. */
int gate_choose(struct vessel *vessel, uint64_t bytes);
/* A memfd with the static ELF of one segment: header, loop, filter, table.  Or -errno. */
int gate_image(struct vessel *vessel, const struct gate_call *calls, size_t count);
/* Runs the table that is in the gate already, in one resume. */
int gate_run(struct vessel *vessel);
/* The table from or to the vessel. */
int gate_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel);

#endif
