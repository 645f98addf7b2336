/* record.h - one instant of a live, stopped process: which pages were written since the last one, and
 * their bytes.  Nothing of it runs in the process: /proc descriptors and a userfaultfd that was
 * made there do. */
#ifndef GDB_UFFD_RECORD_H
#define GDB_UFFD_RECORD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel/fail.h"
#include "kernel/python.h"
#include "table/ranges.h"

/* How the pages of a mapping are recorded. */
#define RECORD_ANONYMOUS 0 /* PYTHON; private; a page that is not there is zeros */
#define RECORD_FILE 1      /* PYTHON; private, of a file: the pages that the process has of its own */
#define RECORD_WHOLE 2     /* PYTHON; the same, and the file's pages: it cannot be relied on later */
#define RECORD_SHARED 3    /* PYTHON; others may write: what the process has mapped is read each time */
#define RECORD_SHARED_WHOLE 4 /* PYTHON; the same, every page of it */

/* What record_scan found out about a mapping. */
#define RECORD_TRACKED 0   /* PYTHON; only pages written since the last scan are in `dirty` */
#define RECORD_FRESH 1     /* PYTHON; new, or moved: all its pages are, and it is tracked from now on */
#define RECORD_UNTRACKED 2 /* PYTHON; all its pages are; record_copy leaves out those that stayed equal */

PYTHON struct record_map {
	uint64_t start, end;
	uint32_t how;   /* in */
	uint32_t state; /* out */
	bool code;      /* in: executable, so that a debugger may have put breakpoints there */
};

struct page_hash {
	uint64_t page, hash;
};

struct page_hashes {
	struct page_hash *at; /* sorted by page */
	size_t count, room;
};

/* Consecutive pages that record_copy took; `bytes` 0: they could not be read. */
PYTHON struct record_piece {
	uint64_t start, end, bytes;
};

/* Categories of ranges in `dirty`; 0: copied as they are. */
#define RANGE_COMPARE 1     /* left out where they stayed equal */
#define RANGE_MAYBE_THERE 2 /* the same; some of the pages may not be there yet */

PYTHON struct record {
	int mem, pagemap; /* /proc/PID/mem and pagemap; the caller's */
	int uffd;         /* -1: nothing is tracked; the caller's */
	pid_t pid;
	bool direct;            /* process_vm_readv is allowed */
	bool scans;             /* PAGEMAP_SCAN is there */
	bool read_all;          /* in: the kernel may write without its tracking seeing it (VmPin) */
	uint64_t key;           /* of the hashes: the program cannot forge an equal page */
	struct ranges dirty;    /* in the last scan; `categories`: RANGE_... */
	struct ranges present;  /* pages that hold something of their own, in the last scan */
	struct ranges before;   /* `present` of the scan before */
	struct ranges found;    /* part of `present`, looked for by a thread while pages are copied */
	pthread_t finder;
	bool finding;           /* it runs, or has not been waited for */
	int later;              /* what came of it */
	const struct record_map *maps; /* of the last scan; the caller's, until record_finish */
	size_t map_count;
	struct ranges code;            /* executable mappings */
	struct ranges traps;           /* pages of code that were copied with an int3 in them */
	struct page_hashes hashes, hashes_before;
	size_t hash_cursor, range_cursor;
	uint64_t page_cursor;
	struct error error;
};

/* 0 or -errno.  `uffd` gets its API handshake; -EOPNOTSUPP when it cannot track writes. */
PYTHON int record_init(struct record *record, pid_t pid, int mem, int pagemap, int uffd);
PYTHON void record_deinit(struct record *record);

/* Fills `dirty`, and begins to fill `present`, from the sorted mappings, and protects what it
 * names: a write after it counts for the next scan.  The process must stand still. */
PYTHON int record_scan(struct record *record, struct record_map *maps, size_t count);

/* `present` is complete after it; to be called before the process runs again. */
PYTHON int record_finish(struct record *record);

/* Copies the next pages of `dirty` into `to`, one piece after the other without gaps.  `done` out:
 * pieces filled; 0 of them: all is copied.  Returns bytes written to `to`, or -errno. */
PYTHON int64_t record_copy(struct record *record, uint8_t *to, size_t len, struct record_piece *pieces,
			   size_t room, size_t *done);

#endif
