/* record.c - which pages of the process were written. */
#define _GNU_SOURCE
#include "recording/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "kernel/uffd.h"

#define TABLE_BYTES (512 * PAGE_BYTES) /* what one page table covers */

static const struct page_scan IN_USE = {.anyof = PAGE_PRESENT | PAGE_SWAPPED};
/* Pages that are not the page of zeros. */
static const struct page_scan NOT_ZERO = {
	.anyof = PAGE_PRESENT | PAGE_SWAPPED,
	.mask = PAGE_PFNZERO,
	.inverted = PAGE_PFNZERO,
};
/* Nor a file's; to ask for that makes a scan 20 times slower (vm_normal_page for each page). */
static const struct page_scan OWN = {
	.anyof = PAGE_PRESENT | PAGE_SWAPPED,
	.mask = PAGE_FILE | PAGE_PFNZERO,
	.inverted = PAGE_FILE | PAGE_PFNZERO,
};

int record_init(struct record *record, pid_t pid, int mem, int pagemap, int uffd)
{
	uint64_t features = 0;

	memset(record, 0, sizeof(*record));
	record->mem = mem;
	record->pagemap = pagemap;
	record->uffd = -1;
	record->pid = pid;
	record->direct = true;
	if (getrandom(&record->key, sizeof(record->key), 0) != (ssize_t)sizeof(record->key))
		return fail(&record->error, errno, "getrandom");
	record->scans = pagemap_scan_fd(pagemap, &IN_USE, 0, PAGE_BYTES, NULL, 0, NULL) >= 0;
	if (uffd < 0)
		return 0;
	if (!record->scans)
		return fail(&record->error, EOPNOTSUPP, "this kernel has no PAGEMAP_SCAN (6.7)");
	int rc = uffd_api(uffd, UFFD_FEATURE_WP_ASYNC, &features);
	if (rc < 0 || !(features & UFFD_FEATURE_WP_ASYNC))
		return fail(&record->error, EOPNOTSUPP, "this kernel has no UFFD_FEATURE_WP_ASYNC (6.7)");
	record->uffd = uffd;
	return 0;
}

void record_deinit(struct record *record)
{
	record_finish(record);
	ranges_deinit(&record->dirty);
	ranges_deinit(&record->present);
	ranges_deinit(&record->before);
	ranges_deinit(&record->found);
	ranges_deinit(&record->code);
	ranges_deinit(&record->traps);
	free(record->hashes.at);
	free(record->hashes_before.at);
	record->hashes = record->hashes_before = (struct page_hashes){0};
}

/* Appends the pages of [start, end) that match; those of them that touch are joined. */
static int scan(struct record *record, const struct page_scan *what, uint64_t start, uint64_t end,
		struct ranges *out, uint64_t flags)
{
	const size_t room = 512, first = out->count;

	while (start < end) {
		int rc = ranges_reserve(out, room);
		if (rc < 0)
			return rc;
		struct page_range *at = out->at + out->count;
		uint64_t walked = start;
		int got = pagemap_scan_fd(record->pagemap, what, start, end, at, room, &walked);
		if (got < 0)
			return got;
		if (walked <= start)
			return -EIO;
		for (int i = 0; i < got; i++) {
			struct page_range *last = out->count > first ? &out->at[out->count - 1] : NULL;
			struct page_range range = {at[i].start, at[i].end, flags};
			if (last && last->end == range.start && last->categories == flags)
				last->end = range.end;
			else
				out->at[out->count++] = range;
		}
		start = walked;
	}
	return 0;
}

/* The same without PAGEMAP_SCAN: 64 bits a page in /proc/PID/pagemap (proc_pid_pagemap(5)). */
static int read_pagemap(struct record *record, bool own, uint64_t start, uint64_t end, struct ranges *out,
			uint64_t flags)
{
	uint64_t entries[512];
	const size_t first = out->count;

	while (start < end) {
		size_t want = (end - start) / PAGE_BYTES < 512 ? (end - start) / PAGE_BYTES : 512;
		ssize_t got = pread(record->pagemap, entries, want * 8, (off_t)(start / PAGE_BYTES * 8));
		if (got < 8)
			return got < 0 ? -errno : -ESRCH;
		for (ssize_t i = 0; i < got / 8; i++, start += PAGE_BYTES) {
			bool used = entries[i] >> 63 || (entries[i] >> 62 & 1);
			bool file = entries[i] >> 61 & 1;
			struct page_range *last = out->count > first ? &out->at[out->count - 1] : NULL;
			if (!used || (own && file))
				continue;
			if (last && last->end == start && last->categories == flags)
				last->end += PAGE_BYTES;
			else if (ranges_add(out, start, start + PAGE_BYTES, flags) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

/* The pages of a private mapping that are the process's own. */
static const struct page_scan *own_of(const struct record_map *map)
{
	return map->how == RECORD_ANONYMOUS ? &NOT_ZERO : &OWN;
}

static int scan_untracked(struct record *record, const struct record_map *map)
{
	size_t first = record->dirty.count;
	int rc = 0;

	if (map->how == RECORD_WHOLE || map->how == RECORD_SHARED_WHOLE) {
		rc = ranges_add(&record->dirty, map->start, map->end, RANGE_MAYBE_THERE);
	} else {
		bool own = map->how != RECORD_SHARED;
		rc = record->scans ? scan(record, own ? own_of(map) : &IN_USE, map->start, map->end,
					  &record->dirty, RANGE_COMPARE)
				   : read_pagemap(record, own, map->start, map->end, &record->dirty,
						  RANGE_COMPARE);
	}
	for (size_t i = first; rc == 0 && i < record->dirty.count; i++)
		rc = ranges_add(&record->present, record->dirty.at[i].start, record->dirty.at[i].end, 0);
	return rc;
}

/* What of a tracked mapping was written, and protect it again.  -EPERM: it is not registered. */
static int scan_written(struct record *record, const struct record_map *map)
{
	struct page_scan what = *own_of(map);

	what.mask |= PAGE_WRITTEN;
	what.protect = true;
	return scan(record, &what, map->start, map->end, &record->dirty, 0);
}

static int scan_fresh(struct record *record, const struct record_map *map)
{
	struct page_scan what = *own_of(map);

	what.protect = true;
	return scan(record, &what, map->start, map->end, &record->dirty, 0);
}

/* Pages that are the file's: whoever writes the file changes them, so they are compared. */
static int scan_the_files(struct record *record, const struct record_map *map)
{
	struct ranges own = {0}, whole = {0};
	size_t first = record->dirty.count;
	int rc = scan(record, &OWN, map->start, map->end, &own, 0);

	if (rc == 0)
		rc = ranges_add(&whole, map->start, map->end, 0);
	if (rc == 0)
		rc = ranges_subtract(&record->dirty, &whole, &own, map->start, map->end);
	for (size_t i = first; i < record->dirty.count; i++)
		record->dirty.at[i].categories = RANGE_MAYBE_THERE;
	ranges_deinit(&own);
	ranges_deinit(&whole);
	return rc;
}

/* A page that a file's mapping had of its own and that was dropped (MADV_DONTNEED) may leave
 * a marker behind, which looks like a swapped page that nobody wrote: those are read again. */
static int scan_swapped(struct record *record, const struct record_map *map)
{
	static const struct page_scan SWAPPED = {.mask = PAGE_SWAPPED};

	return scan(record, &SWAPPED, map->start, map->end, &record->dirty, 0);
}

/* A mapping that is new holds nothing of what was recorded at its place: equal bytes are no reason to
 * leave a page out. */
static void forget_hashes(struct record *record, const struct record_map *map)
{
	struct page_hashes *old = &record->hashes_before;
	size_t kept = 0;

	for (size_t i = 0; i < old->count; i++) {
		if (old->at[i].page < map->start || old->at[i].page >= map->end)
			old->at[kept++] = old->at[i];
	}
	old->count = kept;
}

static int scan_tracked(struct record *record, struct record_map *map)
{
	size_t first = record->dirty.count;
	int rc = scan_written(record, map);

	map->state = RECORD_TRACKED;
	if (rc == -EPERM) {
		record->dirty.count = first;
		map->state = RECORD_FRESH;
		if (uffd_register_written(record->uffd, map->start, map->end - map->start) < 0)
			return -EPERM;
		rc = scan_fresh(record, map);
		if (map->how == RECORD_WHOLE)
			forget_hashes(record, map);
	} else if (rc == 0 && map->how != RECORD_ANONYMOUS) {
		rc = scan_swapped(record, map);
	}
	if (rc == 0 && map->how == RECORD_WHOLE)
		rc = scan_the_files(record, map);
	if (rc == 0 && map->how == RECORD_WHOLE)
		rc = ranges_add(&record->present, map->start, map->end, 0);
	if (rc == 0 && map->how == RECORD_FILE)
		rc = scan(record, &OWN, map->start, map->end, &record->present, 0);
	ranges_join(&record->dirty, first);
	return rc;
}

/* Whether `find_present` looks for the pages of this mapping, beside the copying.  Not those of a
 * file: to read one that was dropped makes it the file's. */
static bool is_later(const struct record_map *map)
{
	return map->state != RECORD_UNTRACKED && map->how == RECORD_ANONYMOUS;
}

/* What `a` or `b` has in [start, end), appended to `out`. */
static int unite(struct ranges *out, const struct ranges *a, const struct ranges *b, uint64_t start,
		 uint64_t end)
{
	static const struct ranges NOTHING = {0};
	size_t first = out->count;
	int rc = ranges_subtract(out, a, &NOTHING, start, end);

	if (rc == 0)
		rc = ranges_subtract(out, b, &NOTHING, start, end);
	ranges_join(out, first);
	return rc;
}

/* The parts of a mapping, each what one page table covers, whose page table may have gone: the first
 * page that was there is not there any more.  Kernels differ in what they tell of those. */
static int lost_tables(struct record *record, const struct record_map *map, struct ranges *out)
{
	const struct ranges *before = &record->before;
	uint64_t next = map->start;

	for (size_t i = ranges_after(before, next); i < before->count; i = ranges_after(before, next)) {
		uint64_t page = before->at[i].start > next ? before->at[i].start : next;
		struct page_range found;

		if (page >= map->end)
			break;
		next = (page | (TABLE_BYTES - 1)) + 1;
		int got = pagemap_scan_fd(record->pagemap, &IN_USE, page, page + PAGE_BYTES, &found, 1, NULL);
		if (got < 0)
			return got;
		uint64_t start = page & -TABLE_BYTES;
		int rc = got ? 0 : ranges_add(out, start > map->start ? start : map->start,
					      next < map->end ? next : map->end, 0);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The pages that a tracked anonymous mapping has, appended to `found`.
 *
 * All that were there before or were written now, and are protected: the kernel finds those that are
 * not several times faster than those that are there (pagemap_scan_pmd_entry's short way, for the one
 * category).  Where a page table may have gone it is looked at in full. */
static int find_protected(struct record *record, const struct record_map *map)
{
	static const struct page_scan UNPROTECTED = {.mask = PAGE_WRITTEN};
	struct ranges all = {0}, rest = {0}, holes = {0}, lost = {0};
	size_t first = record->found.count;
	int rc = scan(record, &UNPROTECTED, map->start, map->end, &holes, 0);

	if (rc == 0)
		rc = lost_tables(record, map, &lost);
	if (rc == 0)
		rc = unite(&all, &record->before, &record->dirty, map->start, map->end);
	if (rc == 0)
		rc = ranges_subtract(&rest, &all, &lost, map->start, map->end);
	if (rc == 0)
		rc = ranges_subtract(&record->found, &rest, &holes, map->start, map->end);
	for (size_t i = 0; rc == 0 && i < lost.count; i++)
		rc = scan(record, &NOT_ZERO, lost.at[i].start, lost.at[i].end, &record->found, 0);
	ranges_join(&record->found, first);
	ranges_deinit(&all);
	ranges_deinit(&rest);
	ranges_deinit(&holes);
	ranges_deinit(&lost);
	return rc;
}

static void *find_present(void *argument)
{
	struct record *record = argument;

	for (size_t i = 0; record->later == 0 && i < record->map_count; i++) {
		const struct record_map *map = &record->maps[i];
		if (!is_later(map))
			continue;
		record->later = map->state == RECORD_TRACKED
					? find_protected(record, map)
					: scan(record, &NOT_ZERO, map->start, map->end, &record->found, 0);
	}
	return NULL;
}

/* Puts `found` into `present`, in order; ranges of different mappings stay apart. */
static int merge_present(struct record *record)
{
	struct ranges *known = &record->present, *found = &record->found, both = {0};
	size_t i = 0, j = 0;
	int rc = ranges_reserve(&both, known->count + found->count + 1);

	if (rc < 0)
		return rc;
	while (i < known->count || j < found->count) {
		bool first = j == found->count ||
			     (i < known->count && known->at[i].start < found->at[j].start);
		both.at[both.count++] = first ? known->at[i++] : found->at[j++];
	}
	ranges_deinit(known);
	*known = both;
	return 0;
}

int record_finish(struct record *record)
{
	if (!record->finding)
		return 0;
	record->finding = false;
	pthread_join(record->finder, NULL);
	int rc = record->later ? record->later : merge_present(record);
	return rc < 0 ? fail(&record->error, -rc, "looking for pages") : 0;
}

static void swap_ranges(struct ranges *a, struct ranges *b)
{
	struct ranges t = *a;

	*a = *b;
	*b = t;
	a->count = 0;
}

int record_scan(struct record *record, struct record_map *maps, size_t count)
{
	struct page_hashes hashes = record->hashes;

	record_finish(record);
	swap_ranges(&record->present, &record->before);
	record->hashes = record->hashes_before;
	record->hashes_before = hashes;
	record->hashes.count = record->hash_cursor = 0;
	record->dirty.count = record->range_cursor = 0;
	record->page_cursor = 0;
	record->code.count = record->traps.count = record->found.count = 0;
	for (size_t i = 0; i < count; i++) {
		struct record_map *map = &maps[i];
		bool shared = map->how == RECORD_SHARED || map->how == RECORD_SHARED_WHOLE;
		size_t dirty = record->dirty.count, present = record->present.count;
		bool untracked = record->uffd < 0 || record->read_all || shared;
		int rc = untracked ? -EPERM : scan_tracked(record, map);

		if (rc == -EPERM || rc == -EINVAL) {
			record->dirty.count = dirty;
			record->present.count = present;
			map->state = RECORD_UNTRACKED;
			rc = scan_untracked(record, map);
		}
		if (rc == 0 && map->code)
			rc = ranges_add(&record->code, map->start, map->end, 0);
		if (rc < 0)
			return fail(&record->error, -rc, "scanning %#lx-%#lx", (unsigned long)map->start,
				    (unsigned long)map->end);
	}
	record->maps = maps;
	record->map_count = count;
	record->later = 0;
	int failed = pthread_create(&record->finder, NULL, find_present, record);
	if (failed)
		return fail(&record->error, failed, "a thread to look for pages");
	record->finding = true;
	return 0;
}
