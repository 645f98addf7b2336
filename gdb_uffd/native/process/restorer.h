/* restorer.h - the one page of ours in the vessel: a loop that runs a table of system calls. */
#ifndef GDB_UFFD_RESTORER_H
#define GDB_UFFD_RESTORER_H

#include "process/vessel.h"

/* Offsets in the restorer's first page; the table begins in the second. */
#define RESTORER_NAME_AT 0x80
#define RESTORER_DEVICE_AT 0x90 /* "/dev/userfaultfd" */
#define RESTORER_NOTHING_AT 0xd0 /* struct __user_cap_header_struct, then 24 bytes of no capabilities */
#define RESTORER_FILTER_AT 0x400 /* struct sock_fprog, then its instructions: the rest of the first page */

/* A stretch of `bytes` that no recorded mapping touches, far from where mmap(2) places things. */
int restorer_choose(struct vessel *vessel, uint64_t bytes);
/* A memfd with the static ELF of one segment: header, loop, filter, table.  Or -errno. */
int restorer_image(struct vessel *vessel, const struct restorer_call *calls, size_t count, bool notify);
/* Moves the vdso that the vessel was started with behind the restorer, where the kernel then has signal
 * handlers return to; nothing where VDSO_ROOM is 0. */
int restorer_keep_vdso(struct vessel *vessel);
/* Runs the table that is in the restorer already, in one resume; `listened`: its first call arrives as a
 * notification and is let through. */
int restorer_run(struct vessel *vessel, bool listened);
/* The last thing: unmaps the restorer itself.  The vessel then stands at a signal stop, at no code of ours. */
int restorer_close(struct vessel *vessel);
/* Runs `calls`, which has room for one more; their results are in it then. */
int restorer_batch(struct vessel *vessel, struct restorer_call *calls, size_t count);
/* The table from or to the vessel. */
int restorer_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel);

#endif
