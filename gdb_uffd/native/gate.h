/* gate.h - the one page of ours in the vessel: a loop that runs a table of system calls. */
#ifndef GDB_UFFD_GATE_H
#define GDB_UFFD_GATE_H

#include "vessel.h"

/* Offsets in the gate's first page; the table begins in the second. */
#define GATE_NAME_AT 0x80
#define GATE_DEVICE_AT 0x90 /* "/dev/userfaultfd" */
#define GATE_NOTHING_AT 0xd0 /* struct __user_cap_header_struct, then 24 bytes of no capabilities */
#define GATE_FILTER_AT 0x400 /* struct sock_fprog, then its instructions: the rest of the first page */

/* A stretch of `bytes` that no recorded mapping touches, far from where mmap(2) places things. */
int gate_choose(struct vessel *vessel, uint64_t bytes);
/* A memfd with the static ELF of one segment: header, loop, filter, table.  Or -errno. */
int gate_image(struct vessel *vessel, const struct gate_call *calls, size_t count, bool notify);
/* Moves the vdso that the vessel was started with behind the gate, where the kernel then has signal
 * handlers return to; nothing where VDSO_ROOM is 0. */
int gate_keep_vdso(struct vessel *vessel);
/* Runs the table that is in the gate already, in one resume; `listened`: its first call arrives as a
 * notification and is let through. */
int gate_run(struct vessel *vessel, bool listened);
/* The last thing: unmaps the gate itself.  The vessel then stands at a signal stop, at no code of ours. */
int gate_close(struct vessel *vessel);
/* The table from or to the vessel. */
int gate_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel);

#endif
