#define _GNU_SOURCE
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pagehash.h"
#include "uffd.h"

#define IOVECS 512 /* of one process_vm_readv; IOV_MAX is 1024 */

static const struct page_scan IN_USE = {.anyof = PAGE_PRESENT | PAGE_SWAPPED};
/* Pages that are neither a file's nor the page of zeros. */
static const struct page_scan OWN = {
	.anyof = PAGE_PRESENT | PAGE_SWAPPED,
	.mask = PAGE_FILE | PAGE_PFNZERO,
	.inverted = PAGE_FILE | PAGE_PFNZERO,
};

void ranges_deinit(struct ranges *ranges)
{
	free(ranges->at);
	memset(ranges, 0, sizeof(*ranges));
}

static int ranges_reserve(struct ranges *ranges, size_t more)
{
	if (ranges->count + more <= ranges->room)
		return 0;
	size_t room = ranges->room ? ranges->room * 2 : 256;
	while (room < ranges->count + more)
		room *= 2;
	struct page_range *at = realloc(ranges->at, room * sizeof(*at));
	if (!at)
		return -ENOMEM;
	ranges->at = at;
	ranges->room = room;
	return 0;
}

static int ranges_add(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t categories)
{
	int rc = ranges_reserve(ranges, 1);

	if (rc == 0)
		ranges->at[ranges->count++] = (struct page_range){start, end, categories};
	return rc;
}

static size_t ranges_after(const struct ranges *ranges, uint64_t address)
{
	size_t low = 0, high = ranges->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (ranges->at[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int ranges_subtract(struct ranges *out, const struct ranges *from, const struct ranges *less,
		    uint64_t start, uint64_t end)
{
	size_t j = ranges_after(less, start);

	for (size_t i = ranges_after(from, start); i < from->count && from->at[i].start < end; i++) {
		uint64_t at = from->at[i].start > start ? from->at[i].start : start;
		uint64_t stop = from->at[i].end < end ? from->at[i].end : end;

		while (at < stop) {
			while (j < less->count && less->at[j].end <= at)
				j++;
			uint64_t gap = j < less->count ? less->at[j].start : end;
			if (gap > at) {
				uint64_t upto = gap < stop ? gap : stop;
				int rc = ranges_add(out, at, upto, 0);
				if (rc < 0)
					return rc;
				at = upto;
			} else {
				at = less->at[j].end;
			}
		}
	}
	return 0;
}

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
	ranges_deinit(&record->dirty);
	ranges_deinit(&record->present);
	ranges_deinit(&record->before);
	ranges_deinit(&record->own);
	ranges_deinit(&record->own_before);
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
static int read_pagemap(struct record *record, bool own, uint64_t start, uint64_t end,
			struct ranges *out, uint64_t flags)
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

static int scan_untracked(struct record *record, const struct record_map *map)
{
	size_t first = record->dirty.count;
	int rc = 0;

	if (map->how == RECORD_WHOLE || map->how == RECORD_SHARED_WHOLE) {
		rc = ranges_add(&record->dirty, map->start, map->end, 1);
	} else {
		bool own = map->how != RECORD_SHARED;
		rc = record->scans ? scan(record, own ? &OWN : &IN_USE, map->start, map->end,
					  &record->dirty, 1)
				   : read_pagemap(record, own, map->start, map->end, &record->dirty, 1);
	}
	for (size_t i = first; rc == 0 && i < record->dirty.count; i++)
		rc = ranges_add(&record->present, record->dirty.at[i].start, record->dirty.at[i].end, 0);
	return rc;
}

/* What of a tracked mapping was written, and protect it again.  -EPERM: it is not registered. */
static int scan_written(struct record *record, const struct record_map *map)
{
	struct page_scan what = map->how == RECORD_WHOLE ? IN_USE : OWN;

	what.mask |= PAGE_WRITTEN;
	what.protect = true;
	return scan(record, &what, map->start, map->end, &record->dirty, 0);
}

static int scan_fresh(struct record *record, const struct record_map *map)
{
	struct page_scan what = map->how == RECORD_WHOLE ? IN_USE : OWN;
	size_t first = record->dirty.count;

	what.protect = true;
	int rc = scan(record, &what, map->start, map->end, &record->dirty, 0);
	if (rc == 0 && map->how == RECORD_WHOLE) {
		record->dirty.count = first;
		rc = ranges_add(&record->dirty, map->start, map->end, 0);
	}
	return rc;
}

/* A page that a file's mapping had of its own and that was dropped (MADV_DONTNEED) may leave
 * a marker behind, which looks like a swapped page that nobody wrote: those are read again. */
static int scan_swapped(struct record *record, const struct record_map *map)
{
	static const struct page_scan SWAPPED = {.mask = PAGE_SWAPPED};

	return scan(record, &SWAPPED, map->start, map->end, &record->dirty, 0);
}

static int by_start(const void *a, const void *b)
{
	const struct page_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorts and joins the ranges from `first` on. */
static void ranges_join(struct ranges *ranges, size_t first)
{
	size_t kept = first;

	if (ranges->count - first < 2)
		return;
	qsort(ranges->at + first, ranges->count - first, sizeof(*ranges->at), by_start);
	for (size_t i = first + 1; i < ranges->count; i++) {
		struct page_range *last = &ranges->at[kept], *next = &ranges->at[i];
		if (next->start <= last->end && next->categories == last->categories)
			last->end = next->end > last->end ? next->end : last->end;
		else
			ranges->at[++kept] = *next;
	}
	ranges->count = kept + 1;
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
	} else if (rc == 0 && map->how != RECORD_ANONYMOUS) {
		rc = scan_swapped(record, map);
	}
	if (rc < 0)
		return rc;
	if (map->how == RECORD_WHOLE) {
		rc = scan(record, &OWN, map->start, map->end, &record->own, 0);
		if (rc == 0)
			rc = ranges_add(&record->present, map->start, map->end, 0);
		if (rc == 0 && map->state == RECORD_TRACKED)
			rc = ranges_subtract(&record->dirty, &record->own_before, &record->own,
					     map->start, map->end);
	} else {
		rc = scan(record, &OWN, map->start, map->end, &record->present, 0);
	}
	ranges_join(&record->dirty, first);
	return rc;
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

	swap_ranges(&record->present, &record->before);
	swap_ranges(&record->own, &record->own_before);
	record->hashes = record->hashes_before;
	record->hashes_before = hashes;
	record->hashes.count = record->hash_cursor = 0;
	record->dirty.count = record->range_cursor = 0;
	record->page_cursor = 0;
	record->code.count = record->traps.count = 0;
	for (size_t i = 0; i < count; i++) {
		struct record_map *map = &maps[i];
		bool shared = map->how == RECORD_SHARED || map->how == RECORD_SHARED_WHOLE;
		size_t dirty = record->dirty.count, present = record->present.count;
		int rc = record->uffd < 0 || shared ? -EPERM : scan_tracked(record, map);

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
	return 0;
}

/* One page that process_vm_readv does not read: it has no read permission, or cannot be had. */
static bool read_page(struct record *record, uint64_t page, uint8_t *to)
{
	return pread(record->mem, to, PAGE_BYTES, (off_t)page) == (ssize_t)PAGE_BYTES;
}

/* How many bytes of the iovecs could be read, from the first on. */
static size_t read_some(struct record *record, uint8_t *to, const struct iovec *from, size_t count)
{
	size_t total = 0;

	if (record->direct) {
		struct iovec local = {to, 0};
		for (size_t i = 0; i < count; i++)
			local.iov_len += from[i].iov_len;
		ssize_t got = process_vm_readv(record->pid, &local, 1, from, count, 0);
		if (got >= 0)
			return (size_t)got / PAGE_BYTES * PAGE_BYTES;
		if (errno != EPERM && errno != ENOSYS)
			return 0;
		record->direct = false; /* yama: only the tracer may; the descriptor still can */
	}
	for (size_t i = 0; i < count; i++) {
		ssize_t got = pread(record->mem, to + total, from[i].iov_len,
				    (off_t)(uintptr_t)from[i].iov_base);
		if (got > 0)
			total += (size_t)got / PAGE_BYTES * PAGE_BYTES;
		if (got != (ssize_t)from[i].iov_len)
			break;
	}
	return total;
}

static int hash_add(struct page_hashes *hashes, uint64_t page, uint64_t hash)
{
	if (hashes->count == hashes->room) {
		size_t room = hashes->room ? hashes->room * 2 : 1024;
		struct page_hash *at = realloc(hashes->at, room * sizeof(*at));
		if (!at)
			return -ENOMEM;
		hashes->at = at;
		hashes->room = room;
	}
	hashes->at[hashes->count++] = (struct page_hash){page, hash};
	return 0;
}

/* 1 when the page is as it was in the scan before, 0 when not; pages come in rising order. */
static int hash_equal(struct record *record, uint64_t page, const uint8_t *bytes)
{
	struct page_hashes *old = &record->hashes_before;
	uint64_t hash = page_hash(bytes, record->key);
	int rc = hash_add(&record->hashes, page, hash);

	if (rc < 0)
		return rc;
	while (record->hash_cursor < old->count && old->at[record->hash_cursor].page < page)
		record->hash_cursor++;
	return record->hash_cursor < old->count && old->at[record->hash_cursor].page == page &&
	       old->at[record->hash_cursor].hash == hash;
}

struct output {
	uint8_t *to;
	size_t used, len;
	struct record_piece *pieces;
	size_t count, room;
};

static bool output_full(const struct output *out)
{
	return out->used + PAGE_BYTES > out->len || out->count == out->room;
}

static void output_add(struct output *out, uint64_t page, bool bytes)
{
	struct record_piece *last = out->count ? &out->pieces[out->count - 1] : NULL;

	if (last && last->end == page && last->bytes == (bytes ? 1u : 0u))
		last->end += PAGE_BYTES;
	else
		out->pieces[out->count++] = (struct record_piece){page, page + PAGE_BYTES, bytes ? 1 : 0};
	if (bytes)
		out->used += PAGE_BYTES;
}

/* The iovecs of what comes next and fits.  Pages that are compared go alone with their like. */
static size_t gather(struct record *record, struct output *out, struct iovec *from, bool *compare)
{
	size_t count = 0, bytes = 0, index = record->range_cursor;
	size_t limit = out->room - out->count < IOVECS ? out->room - out->count : IOVECS;
	uint64_t page = record->page_cursor;

	for (; index < record->dirty.count && count < limit; index++, page = 0) {
		const struct page_range *range = &record->dirty.at[index];
		uint64_t start = page > range->start ? page : range->start;
		uint64_t len = range->end - start;

		if (count && *compare != (range->categories != 0))
			break;
		*compare = range->categories != 0;
		if (*compare && len > limit * PAGE_BYTES) /* a piece may come of each */
			len = limit * PAGE_BYTES;
		if (len > out->len - out->used - bytes)
			len = (out->len - out->used - bytes) / PAGE_BYTES * PAGE_BYTES;
		if (!len)
			break;
		from[count++] = (struct iovec){(void *)(uintptr_t)start, len};
		bytes += len;
		if (*compare || start + len < range->end)
			break;
	}
	return count;
}

static void advance(struct record *record, uint64_t page)
{
	while (record->range_cursor < record->dirty.count &&
	       page >= record->dirty.at[record->range_cursor].end)
		record->range_cursor++;
	record->page_cursor = page;
}

/* Notes a page of code with an int3 in it: the byte may be a breakpoint's. */
static int note_trap(struct record *record, uint64_t page, const uint8_t *bytes)
{
	size_t i = ranges_after(&record->code, page);

	if (i == record->code.count || record->code.at[i].start > page ||
	    !memchr(bytes, 0xcc, PAGE_BYTES))
		return 0;
	return ranges_add(&record->traps, page, page + PAGE_BYTES, 0);
}

/* Takes the pages that were read behind out->used, and says where to go on. */
static int take(struct record *record, struct output *out, const struct iovec *from, size_t count,
		size_t got, bool compare)
{
	const uint8_t *bytes = out->to + out->used;

	for (size_t i = 0; i < count; i++) {
		uint64_t page = (uintptr_t)from[i].iov_base, end = page + from[i].iov_len;

		for (; page < end; page += PAGE_BYTES) {
			if (got == 0) {
				advance(record, page);
				return 0;
			}
			int equal = compare ? hash_equal(record, page, bytes) : 0;
			if (equal < 0)
				return equal;
			if (!equal) {
				int rc = record->code.count ? note_trap(record, page, bytes) : 0;
				if (rc < 0)
					return rc;
				if (bytes != out->to + out->used)
					memmove(out->to + out->used, bytes, PAGE_BYTES);
				output_add(out, page, true);
			}
			bytes += PAGE_BYTES;
			got -= PAGE_BYTES;
		}
		advance(record, end);
	}
	return 0;
}

int64_t record_copy(struct record *record, uint8_t *to, size_t len, struct record_piece *pieces,
		    size_t room, size_t *done)
{
	struct output out = {.to = to, .len = len, .pieces = pieces, .room = room};
	struct iovec from[IOVECS];
	bool compare = false;

	while (record->range_cursor < record->dirty.count && !output_full(&out)) {
		size_t count = gather(record, &out, from, &compare);
		if (!count)
			break;
		size_t got = read_some(record, to + out.used, from, count);
		if (got) {
			int rc = take(record, &out, from, count, got, compare);
			if (rc < 0)
				return fail(&record->error, -rc, "comparing pages");
			continue;
		}
		uint64_t page = (uintptr_t)from[0].iov_base;
		if (read_page(record, page, to + out.used)) {
			struct iovec one = {from[0].iov_base, PAGE_BYTES};
			int rc = take(record, &out, &one, 1, PAGE_BYTES, compare);
			if (rc < 0)
				return fail(&record->error, -rc, "comparing pages");
		} else {
			output_add(&out, page, false);
			advance(record, page + PAGE_BYTES);
		}
	}
	*done = out.count;
	return (int64_t)out.used;
}
