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

#include "arch.h"
#include "code.h"
#include "engine.h"
#include "error.h"
#include "pages.h"
#include "regions.h"
#include "touch.h"
#include "watch.h"

#define BREAKPOINTS_MAX 1024
#define PLANTED_MAX 8

struct breakpoint {
	uint64_t address;
	uint8_t original[BREAKPOINT_BYTES]; /* what lies beneath it */
};

struct file_map { /* our own mapping of a file that the program mapped */
	void *at;
	size_t len;
	bool in_tx;
};

struct pager {
	pthread_mutex_t lock;
	pthread_t thread;
	bool running;
	int uffd, wake_fd;
	int mem_fd;     /* /proc/PID/mem */
	int syscall_fd; /* /proc/PID/syscall */
	pid_t vessel;

	struct regions regions; /* as the vessel is mapped now */
	struct regions at_tx;   /* as at the transaction's beginning, when layout_changed */
	struct regions recorded; /* the snapshot's */
	struct regions at_call; /* as when the program first ran in it, when layout_at_call */
	bool layout_changed;
	bool layout_at_call; /* gdb's own malloc had changed it by then */
	struct pages pages;
	bool in_malloc; /* gdb's own call of malloc is running */
	bool program_ran; /* something else ran in the open transaction */

	struct breakpoint breakpoints[BREAKPOINTS_MAX];
	size_t breakpoint_count;

	uint64_t planted[PLANTED_MAX]; /* breakpoints that go in when their page is fed */
	size_t planted_count;

	struct file_map *maps;
	size_t map_count, map_room;

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
	int note_error;     /* why pager_note_write gave NULL: -ENOMEM, or its source failed */
	uint64_t fault_address; /* of an access whose SIGBUS is a SIGSTOP on its way, else 0 */
	struct engine engine;
	int cpu;            /* the thread follows the vessel here; -1: anywhere */
	struct fed fed_log;
	struct touches touches;
	struct watch watch;
	struct code_space code;
};

int pager_init(struct pager *pager);
void pager_deinit(struct pager *pager);

/* Starts serving `vessel` (descriptors are taken over) and stops again. */
int pager_start(struct pager *pager, pid_t vessel, int uffd, struct error *error);
void pager_stop(struct pager *pager);
void pager_pin(struct pager *pager, int cpu);

/* Takes over a mapping that regions point into; on failure it is unmapped. */
int pager_keep_map(struct pager *pager, void *at, size_t len);
/* Unmaps those of the open transaction (`all`: every one); commits the others. */
void pager_drop_maps(struct pager *pager, bool all);
void pager_commit_maps(struct pager *pager);

/* After each stop of the vessel: a COPY wakes it before the pager has noted the page, so a quick
 * stop could be looked at too early. */
static inline void pager_settle(struct pager *pager)
{
	pthread_mutex_lock(&pager->lock);
	pthread_mutex_unlock(&pager->lock);
}

/* Fills in who is in a fault or a system call: PC and SP of the vessel, which sleeps there. */
void pager_read_access(struct pager *pager, struct access *who);

/* Main side; the vessel is stopped. */
int pager_populate(struct pager *pager, uint64_t page);
/* Whether the page is there or may be (pager->limit); otherwise pager->over_limit is set. */
bool pager_has_room(struct pager *pager, uint64_t page);
/* Lists the first touch of a page that is about to be fed. */
void pager_note_touch(struct pager *pager, const struct region *region, const struct access *who,
		      bool write);
/* As pager_populate; but while touches are listed, gdb's own writes feed nothing: they wait in the
 * page's kept contents, so that the program's first touch is seen. */
int pager_make_writable(struct pager *pager, uint64_t page);
int pager_populate_range(struct pager *pager, uint64_t start, uint64_t end);
/* Memory as it is now; `done` out: how many bytes are there from `address` on. */
int pager_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done);
/* A write by gdb, through any protection. */
int pager_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer);
int pager_breakpoint_insert(struct pager *pager, uint64_t address);
int pager_breakpoint_remove(struct pager *pager, uint64_t address);
/* Takes a planted one out, and puts it in again. */
int pager_plant(struct pager *pager, uint64_t address, bool in);

/* Copies a page's bytes from a source that a hostile file may cut short: -EFAULT, never SIGBUS. */
int safe_copy(void *to, const void *from, size_t len);
/* The page as it is in the vessel, breakpoints masked. */
int pager_vessel_page(struct pager *pager, uint64_t page, uint8_t *to);
/* The page as `regions` has it; zeros where nothing was mapped. */
int pager_source_page(const struct regions *regions, uint64_t page, uint8_t *to);
/* Feeds one page.  -EFAULT: its source failed. */
int pager_feed(struct pager *pager, const struct region *region, uint64_t page, bool protect);
/* A page that is read and that nothing was recorded of: the kernel's page of zeros, and where pages are read one
 * after the other, more of them at once.  1: it was fed; 0: it is another's; or an error. */
int pager_feed_zeros(struct pager *pager, const struct region *region, uint64_t page);
/* What lies beneath the inserted breakpoints in `bytes`, which were read at `address`. */
void pager_mask_breakpoints(const struct pager *pager, uint64_t address, uint8_t *bytes, size_t len);
/* Notes a write to a page in the open transaction, taking the before-image first. */
struct written *pager_note_write(struct pager *pager, uint64_t page, int writer,
				 const struct access *who);

#endif
