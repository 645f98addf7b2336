/* pager.h - the thread that feeds the vessel its pages and sees every first write.
 *
 * The table and the pages belong to the vessel's owner; the pager thread touches them only while
 * the vessel runs, under `lock`.  Nothing here knows Python; the thread never needs the GIL. */
#ifndef GDB_UFFD_PAGER_H
#define GDB_UFFD_PAGER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/arch.h"
#include "kernel/fail.h"
#include "kernel/python.h"
#include "pager/code.h"
#include "pager/tracker.h"
#include "pager/watch.h"
#include "table/fed.h"
#include "table/maps.h"
#include "table/pages.h"
#include "table/regions.h"
#include "table/touches.h"

#define BREAKPOINTS_MAX 1024
#define PLANTED_MAX 8 /* PYTHON */

struct breakpoint {
	uint64_t address;
	uint8_t original[BREAKPOINT_BYTES]; /* what lies beneath it */
};

PYTHON struct pager {
	pthread_mutex_t lock;
	pthread_t thread;
	bool running;
	int uffd, wake_fd;
	int mem_fd;     /* /proc/PID/mem */
	int syscall_fd; /* /proc/PID/syscall */
	pid_t vessel;

	struct regions regions; /* as the vessel is mapped now */
	struct regions at_tx;   /* as at the transaction's beginning, when mappings_changed */
	struct regions recorded; /* the snapshot's */
	struct regions at_call; /* as when the program first ran in it, when mappings_at_call */
	bool mappings_changed;
	bool mappings_at_call; /* gdb's own malloc had changed it by then */
	struct pages pages;
	bool in_malloc; /* gdb's own call of malloc is running */
	bool program_ran; /* something else ran in the open transaction */

	struct breakpoint breakpoints[BREAKPOINTS_MAX];
	size_t breakpoint_count;

	uint64_t planted[PLANTED_MAX]; /* breakpoints that go in when their page is fed */
	size_t planted_count;

	struct maps maps;

	uint64_t limit;   /* pages without recorded bytes that may be there; 0: any number */
	bool over_limit;  /* one more was touched; the vessel was sent a SIGSTOP */
	bool user_mode_only; /* the kernel's own accesses find only what is there */
	uint64_t faults, fault_ns, fed;
	uint64_t fed_ahead; /* of them, pages of zeros that nobody had touched yet */
	uint64_t zeros_low, zeros_high; /* the area that was fed last with zeros */
	uint64_t unknown_zeros, unknown_file; /* of the fed pages: REGION_UNKNOWN ones, by what they are taken for */
	uint64_t unmoved; /* pages that mremap moved in this transaction, beyond those compared */
	uint64_t emptied_more; /* pages of this transaction that lost their bytes, beyond those noted */
	uint64_t lost_page; /* page whose source failed (file cut short), else 0 */
	int failure;        /* errno of what kept a page from the vessel; its call is over */
	uint64_t failure_page; /* 0: any page */
	int note_error;     /* why note_write gave NULL: -ENOMEM, or its source failed */
	uint64_t fault_address; /* of an access whose SIGBUS is a SIGSTOP on its way, else 0 */
	struct tracker tracker;
	int cpu;            /* the thread follows the vessel here; -1: anywhere */
	struct fed fed_log;
	struct touches touches;
	struct watch watch;
	struct code_space code;
};

PYTHON int pager_init(struct pager *pager);
PYTHON void pager_deinit(struct pager *pager);

/* Starts serving `vessel` (descriptors are taken over) and stops again. */
int pager_start(struct pager *pager, pid_t vessel, int uffd, struct error *error);
void pager_stop(struct pager *pager);
void pager_pin(struct pager *pager, int cpu);

/* After each stop of the vessel: a COPY wakes it before the pager has noted the page, so a quick
 * stop could be looked at too early. */
static inline void pager_settle(struct pager *pager)
{
	pthread_mutex_lock(&pager->lock);
	pthread_mutex_unlock(&pager->lock);
}

#endif
