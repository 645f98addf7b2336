/* soft-dirty: bit 55 of a /proc/PID/pagemap entry, cleared for the whole process at once by writing
 * 4 to /proc/PID/clear_refs (Documentation/admin-guide/mm/soft-dirty.rst, pagemap.rst). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_look.h"
#include "pager.h"

#define SOFT_DIRTY (1ull << 55)
#define WINDOW 512 /* entries of one read */

/* Index of the first fed page at or behind `page`. */
static size_t find(const struct engine *engine, uint64_t page)
{
	size_t low = 0, high = engine->fed_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (engine->fed[middle] < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int soft_dirty_fed(struct engine *engine, uint64_t page)
{
	size_t i = find(engine, page);

	if (i < engine->fed_count && engine->fed[i] == page)
		return 0;
	if (engine->fed_count == engine->fed_room) {
		size_t room = engine->fed_room ? engine->fed_room * 2 : 256;
		uint64_t *at = realloc(engine->fed, room * sizeof(*at));
		if (!at)
			return -ENOMEM;
		engine->fed = at;
		engine->fed_room = room;
	}
	memmove(engine->fed + i + 1, engine->fed + i, (engine->fed_count - i) * sizeof(*engine->fed));
	engine->fed[i] = page;
	engine->fed_count++;
	return 0;
}

int soft_dirty_clear(struct engine *engine)
{
	if (write(engine->clear_fd, "4", 1) != 1)
		return -errno;
	engine->stale = false;
	return 0;
}

int soft_dirty_look(struct pager *pager)
{
	struct engine *engine = &pager->engine;
	uint64_t entries[WINDOW];

	for (size_t i = 0, j; i < engine->fed_count; i = j) {
		uint64_t first = engine->fed[i];
		for (j = i + 1; j < engine->fed_count; j++)
			if ((engine->fed[j] - first) / PAGE_BYTES >= WINDOW)
				break;
		size_t bytes = ((engine->fed[j - 1] - first) / PAGE_BYTES + 1) * sizeof(*entries);
		ssize_t got = pread(engine->pagemap_fd, entries, bytes, (off_t)(first / PAGE_BYTES * 8));
		if (got != (ssize_t)bytes)
			return got < 0 ? -errno : -ESRCH; /* nothing is read of a process that ended */
		for (size_t k = i; k < j; k++) {
			uint64_t page = engine->fed[k];
			const struct page_slot *slot = pages_find(&pager->pages, page);
			if (!slot || !slot->present || !(entries[(page - first) / PAGE_BYTES] & SOFT_DIRTY))
				continue;
			int rc = engine_note(pager, page);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}
