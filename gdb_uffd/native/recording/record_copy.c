/* record_copy.c - the bytes of the pages that record_scan named. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/array.h"
#include "recording/page_hash.h"
#include "recording/record.h"

#define IOVECS 1024      /* of one round; IOV_MAX is 1024 */
#define SPLIT_IOVECS 128 /* fewer are not worth a thread */

/* One page that process_vm_readv does not read: it has no read permission, or cannot be had. */
static bool read_page(struct record *record, uint64_t page, uint8_t *to)
{
	return pread(record->mem, to, PAGE_BYTES, (off_t)page) == (ssize_t)PAGE_BYTES;
}

struct half {
	pid_t pid;
	struct iovec local;
	const struct iovec *from;
	size_t count;
	ssize_t got;
};

static void *read_half(void *argument)
{
	struct half *half = argument;

	half->got = process_vm_readv(half->pid, &half->local, 1, half->from, half->count, 0);
	if (half->got < 0)
		half->got = -errno;
	return NULL;
}

/* process_vm_readv, by two threads where there is much to read: the process stands still, so that its
 * CPU is free.  Bytes from the first on that were read, or -errno. */
static ssize_t read_direct(pid_t pid, uint8_t *to, const struct iovec *from, size_t count)
{
	size_t middle = count >= SPLIT_IOVECS ? count / 2 : count, bytes[2] = {0};
	pthread_t thread;

	for (size_t i = 0; i < count; i++)
		bytes[i >= middle] += from[i].iov_len;
	struct half one = {.pid = pid, .local = {to, bytes[0]}, .from = from, .count = middle};
	struct half two = {.pid = pid, .local = {to + bytes[0], bytes[1]}, .from = from + middle,
			   .count = count - middle};
	bool split = two.count && pthread_create(&thread, NULL, read_half, &two) == 0;

	read_half(&one);
	if (split)
		pthread_join(thread, NULL);
	if (one.got < 0 || (size_t)one.got < bytes[0] || !split || two.got < 0)
		return one.got;
	return one.got + two.got;
}

/* How many bytes of the iovecs could be read, from the first on.
 *
 * A page that is not there, in memory that the program watches by a userfaultfd of its own, would
 * make process_vm_readv wait for the program's handler, which stands still; /proc/PID/mem fails. */
static size_t read_some(struct record *record, uint8_t *to, const struct iovec *from, size_t count, bool there)
{
	size_t total = 0;

	if (record->direct && there) {
		ssize_t got = read_direct(record->pid, to, from, count);
		if (got >= 0)
			return (size_t)got / PAGE_BYTES * PAGE_BYTES;
		if (got != -EPERM && got != -ENOSYS && got != -ESRCH)
			return 0;
		/* Yama: only the tracer may.  Or the main thread has ended.  The descriptor still can. */
		record->direct = false;
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
	struct page_hash *made = array_add(*hashes);

	if (!made)
		return -ENOMEM;
	*made = (struct page_hash){page, hash};
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
static size_t gather(struct record *record, struct output *out, struct iovec *from, bool *compare, bool *there)
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
		*there = range->categories != RANGE_MAYBE_THERE;
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
static int take(struct record *record, struct output *out, const struct iovec *from, size_t count, size_t got,
		bool compare)
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

int64_t record_copy(struct record *record, uint8_t *to, size_t len, struct record_piece *pieces, size_t room,
		    size_t *done)
{
	struct output out = {.to = to, .len = len, .pieces = pieces, .room = room};
	struct iovec from[IOVECS];
	bool compare = false, there = true;

	while (record->range_cursor < record->dirty.count && !output_full(&out)) {
		size_t count = gather(record, &out, from, &compare, &there);
		if (!count)
			break;
		size_t got = read_some(record, to + out.used, from, count, there);
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
