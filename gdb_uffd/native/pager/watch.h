/* watch.h - every write to one object, told one by one: while the last call is run again.
 *
 * What the debug registers cannot hold is watched by write-protecting its pages: the pager stops the
 * vessel before it writes there, and the tracer lets it make that one instruction.  What the kernel
 * writes in a system call is seen by comparing, at the call's end. */
#ifndef GDB_UFFD_WATCH_H
#define GDB_UFFD_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/python.h"
#include "table/pages.h"

#define WATCH_BYTES_MAX (64ul << 20) /* PYTHON */

struct pager;

PYTHON struct watch {
	uint64_t start, end; /* the object, half-open; 0, 0: nothing is watched */
	bool pages;          /* by write-protection; else by the caller's debug registers */
	uint8_t *old, *now;  /* its bytes as told last, and as found since */
	uint64_t mask;       /* blocked signals, before a trap of ours may have changed that */
	int64_t call;        /* number of the system call under way, or that was made last */
	bool all;            /* protected pages may have changed too: mapped anew, written by us */
	/* From the pager to the tracer, under the pager's lock; hit_page 0: nothing. */
	uint64_t hit_page;
	struct access hit;
};

PYTHON void watch_deinit(struct watch *watch);
/* The vessel is there and stopped.  -E2BIG: the object is too large. */
PYTHON int watch_start(struct pager *pager, uint64_t start, uint64_t end, bool pages);
/* What lies in [low, high) of the object now is known. */
PYTHON void watch_accept(struct watch *watch, uint64_t low, uint64_t high);
/* Compares the object (`all`), or only its pages that are not protected, which are protected again.
 * 1: it differs, first in [*low, *high). */
PYTHON int watch_compare(struct pager *pager, bool all, uint64_t *low, uint64_t *high);
/* A descriptor that becomes readable once, so many milliseconds from now; or -errno. */
PYTHON int watch_timer(unsigned int milliseconds);

/* Inside the native part. */
static inline bool watch_holds(const struct watch *watch, uint64_t page)
{
	return page < watch->end && watch->start < page + 4096;
}
/* Pager side: stops the vessel before the instruction that would write.  False: the write must go
 * on (the kernel makes it). */
bool watch_stop(struct watch *watch, pid_t vessel, uint64_t page, const struct access *who);
/* Arms or lifts the protection of one of its pages. */
int watch_protect(struct pager *pager, uint64_t page, bool on);

#endif
