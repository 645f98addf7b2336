/* changes.h - what a transaction's report tells of memory. */
#ifndef GDB_UFFD_CHANGES_H
#define GDB_UFFD_CHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"
#include "table/pages.h"
#include "table/regions.h"

/* One page of a report; the images belong to the report. */
PYTHON struct change {
	uint64_t page;
	struct access first;
	uint8_t writers;
	uint32_t bytes_changed;
	uint8_t *before, *after; /* NULL when nothing differs, but for what was moved */
	uint8_t *old;            /* as it was when the program first ran, where that is not `before`;
				  * else NULL */
	bool counts_malloc;      /* what gdb's own malloc wrote is among what differs */
	const uint64_t *callers; /* of `first`, a zero behind the last; belongs to the pager and is good until the
				  * transaction is closed; or NULL */
};

PYTHON struct changes {
	struct change *at;
	size_t count;
	bool all;       /* everything since the snapshot */
	struct change *gone; /* pages that were unmapped: only how they were before, sorted */
	size_t gone_count;
	bool mappings;  /* they changed: */
	struct regions was, is; /* then those before and after */
	bool truncated; /* more pages than images may be kept for: transaction_load takes those of some */
};

PYTHON void changes_deinit(struct changes *changes);

/* Pages that only one of the two lists has as written by one of `writers`, or that it left with
 * other bytes; `first` out: the lowest of them.  Pages without images are taken as equal. */
PYTHON size_t changes_differ(const struct changes *left, const struct changes *right, int writers,
			     uint64_t *first);

/* How many of the bytes differ. */
PYTHON uint32_t changes_count(const uint8_t *before, const uint8_t *after, size_t len);

/* Differing stretches of two pages, joined over at most `gap` equal bytes: offsets and lengths
 * into `runs` (pairs), at most `room` pairs; returns how many there are in all. */
PYTHON size_t changes_runs(const uint8_t *before, const uint8_t *after, size_t gap, uint16_t *runs, size_t room);

#endif
