/* pending.h - a pending signal is taken from the kernel, and what it tells is mended. */
#ifndef GDB_UFFD_PENDING_H
#define GDB_UFFD_PENDING_H

#include <stdint.h>

struct system_call;
struct vessel;

/* For rt_sigtimedwait(2), and for a read of a signalfd with `set`.  ANSWER_REDO, or a negative errno. */
int64_t pending_take(struct vessel *vessel, const struct system_call *call);
int64_t pending_take_record(struct vessel *vessel, const struct system_call *call, uint64_t set);

#endif
