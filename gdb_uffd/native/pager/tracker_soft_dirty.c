/* soft-dirty: bit 55 of a /proc/PID/pagemap entry, cleared for the whole process at once by writing
 * 4 to /proc/PID/clear_refs (Documentation/admin-guide/mm/soft-dirty.rst, pagemap.rst). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/array.h"
#include "kernel/proc.h"
#include "pager/note.h"
#include "pager/pager.h"

#define SOFT_DIRTY (1ull << 55)
#define WINDOW 512 /* entries of one read */

/* Index of the first fed page at or behind `page`. */
static size_t find(const struct tracker *tracker, uint64_t page)
{
	size_t low = 0, high = tracker->fed.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (tracker->fed.at[middle] < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The page is there from now on. */
static int note_fed(struct tracker *tracker, uint64_t page)
{
	size_t i = find(tracker, page);

	if (i < tracker->fed.count && tracker->fed.at[i] == page)
		return 0;
	uint64_t *last = array_add(tracker->fed);
	if (!last)
		return -ENOMEM;
	memmove(tracker->fed.at + i + 1, tracker->fed.at + i, (size_t)(last - (tracker->fed.at + i)) * sizeof(*last));
	tracker->fed.at[i] = page;
	return 0;
}

/* Clears every bit of the process. */
static int clear(struct tracker *tracker)
{
	if (write(tracker->clear_fd, "4", 1) != 1)
		return -errno;
	tracker->stale = false;
	return 0;
}

/* Notes the pages whose bit stands. */
static int note_dirty(struct pager *pager)
{
	struct tracker *tracker = &pager->tracker;
	uint64_t entries[WINDOW];

	for (size_t i = 0, j; i < tracker->fed.count; i = j) {
		uint64_t first = tracker->fed.at[i];
		for (j = i + 1; j < tracker->fed.count; j++)
			if ((tracker->fed.at[j] - first) / PAGE_BYTES >= WINDOW)
				break;
		size_t bytes = ((tracker->fed.at[j - 1] - first) / PAGE_BYTES + 1) * sizeof(*entries);
		ssize_t got = pread(tracker->pagemap_fd, entries, bytes, (off_t)(first / PAGE_BYTES * 8));
		if (got != (ssize_t)bytes)
			return got < 0 ? -errno : -ESRCH; /* nothing is read of a process that ended */
		for (size_t k = i; k < j; k++) {
			uint64_t page = tracker->fed.at[k];
			const struct page_slot *slot = pages_find(&pager->pages, page);
			if (!slot || !slot->present || !(entries[(page - first) / PAGE_BYTES] & SOFT_DIRTY))
				continue;
			int rc = note_collected(pager, page);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

static int start(struct pager *pager, struct error *error)
{
	struct tracker *tracker = &pager->tracker;

	tracker->pagemap_fd = proc_open(pager->vessel, "pagemap", O_RDONLY, error);
	if (tracker->pagemap_fd < 0)
		return tracker->pagemap_fd;
	tracker->clear_fd = proc_open(pager->vessel, "clear_refs", O_WRONLY, error);
	tracker->stale = true; /* new mappings count as written (Linux's soft-dirty.rst) */
	return tracker->clear_fd < 0 ? tracker->clear_fd : 0;
}

/* Who waits for the page sleeps on until after_feed. */
static int copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	(void)protect;
	int rc = uffd_copy_page_unseen(pager->uffd, page, from);
	if (rc == 0)
		rc = note_fed(&pager->tracker, page);
	pager->tracker.stale = true; /* the copy sets the bit */
	return rc;
}

/* Clearing clears every bit, so what stands is noted first, at each page. */
static int after_feed(struct pager *pager, uint64_t page)
{
	int rc = clear(&pager->tracker);

	return rc == 0 ? uffd_wake_page(pager->uffd, page) : rc;
}

static int collect(struct pager *pager)
{
	int rc = note_dirty(pager);

	pager->tracker.stale = true;
	return rc;
}

/* Whatever made them stale has collected before, so no bit of the program's is lost. */
static int about_to_run(struct tracker *tracker)
{
	return tracker->stale ? clear(tracker) : 0;
}

static int moved(struct pager *pager, uint64_t page)
{
	return note_fed(&pager->tracker, page);
}

static int ignore(struct pager *pager, uint64_t page)
{
	(void)page;
	pager->tracker.stale = true;
	return 0;
}

/* A new mapping counts as written, and so does all of the one that it is joined to: collecting leaves the bits stale,
 * so that they are cleared before the program runs on. */
const struct tracker_kind tracker_soft_dirty = {
	.name = "soft-dirty",
	.start = start,
	.copy = copy,
	.before_feed = note_dirty,
	.after_feed = after_feed,
	.collect = collect,
	.about_to_run = about_to_run,
	.collects_before_mappings = true,
	.moved = moved,
	.ignore = ignore,
};
