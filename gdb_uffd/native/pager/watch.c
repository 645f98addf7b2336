#define _GNU_SOURCE
#include "pager/watch.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "pager/memory.h"
#include "pager/pager.h"

void watch_deinit(struct watch *watch)
{
	free(watch->old);
	free(watch->now);
	*watch = (struct watch){0};
}

static uint64_t floor_page(uint64_t address)
{
	return address & ~(PAGE_BYTES - 1);
}

int watch_protect(struct pager *pager, uint64_t page, bool on)
{
	struct written *w = pages_written(&pager->pages, page);
	int rc = uffd_protect(pager->uffd, page, PAGE_BYTES, on);

	if (w)
		w->armed = on && rc == 0;
	/* Dropped, or never registered (a device): not watched there. */
	return rc == -ENOENT || rc == -ESRCH ? 0 : rc;
}

/* The object's bytes in [low, high), which lies in one page; zeros where there are none. */
static void look_at(struct pager *pager, uint64_t low, uint64_t high)
{
	struct watch *watch = &pager->watch;
	uint8_t *to = watch->now + (low - watch->start);
	size_t done;

	if (memory_read(pager, low, to, high - low, &done) < 0)
		memset(to + done, 0, high - low - done);
}

int watch_start(struct pager *pager, uint64_t start, uint64_t end, bool pages)
{
	struct watch *watch = &pager->watch;

	watch_deinit(watch);
	if (start >= end || end - start > WATCH_BYTES_MAX)
		return -E2BIG;
	if (end > UINT64_MAX - PAGE_BYTES) /* the page behind it has an address */
		return -EINVAL;
	watch->old = calloc(1, end - start);
	watch->now = calloc(1, end - start);
	if (!watch->old || !watch->now) {
		watch_deinit(watch);
		return -ENOMEM;
	}
	watch->start = start;
	watch->end = end;
	watch->pages = pages;
	watch->call = -1;
	for (uint64_t page = floor_page(start); page < end; page += PAGE_BYTES) {
		uint64_t low = page > start ? page : start;
		uint64_t high = page + PAGE_BYTES < end ? page + PAGE_BYTES : end;
		/* What is not there yet is protected when it is fed. */
		if (pages && pages_has(&pager->pages, page)) {
			int rc = watch_protect(pager, page, true);
			if (rc < 0)
				return rc;
		}
		look_at(pager, low, high);
	}
	memcpy(watch->old, watch->now, end - start);
	return 0;
}

void watch_accept(struct watch *watch, uint64_t low, uint64_t high)
{
	if (low < watch->start || high > watch->end || low >= high)
		return;
	memcpy(watch->old + (low - watch->start), watch->now + (low - watch->start), high - low);
}

/* Widens [*low, *high) by what differs in one page of the object. */
static bool compare_page(struct pager *pager, uint64_t page, uint64_t *low, uint64_t *high)
{
	struct watch *watch = &pager->watch;
	uint64_t from = page > watch->start ? page : watch->start;
	uint64_t to = page + PAGE_BYTES < watch->end ? page + PAGE_BYTES : watch->end;

	look_at(pager, from, to);
	const uint8_t *old = watch->old + (from - watch->start), *now = watch->now + (from - watch->start);
	size_t len = to - from, first = 0;
	if (memcmp(old, now, len) == 0)
		return false;
	while (old[first] == now[first])
		first++;
	while (old[len - 1] == now[len - 1])
		len--;
	if (!*high || from + first < *low)
		*low = from + first;
	if (from + len > *high)
		*high = from + len;
	return true;
}

int watch_compare(struct pager *pager, bool all, uint64_t *low, uint64_t *high)
{
	struct watch *watch = &pager->watch;
	bool differs = false;

	*low = *high = 0;
	for (uint64_t page = floor_page(watch->start); page < watch->end; page += PAGE_BYTES) {
		const struct written *w = pages_written(&pager->pages, page);
		bool open = w && !w->armed && pages_has(&pager->pages, page);
		if (watch->pages && !open && !all)
			continue;
		differs |= compare_page(pager, page, low, high);
		if (watch->pages && open) {
			int rc = watch_protect(pager, page, true);
			if (rc < 0)
				return rc;
		}
	}
	return differs;
}

int watch_timer(unsigned int milliseconds)
{
	struct itimerspec spec = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000000l}};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (!milliseconds)
		spec.it_value.tv_nsec = 1; /* zero would disarm it */
	if (timerfd_settime(fd, 0, &spec, NULL) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

bool watch_stop(struct watch *watch, pid_t vessel, uint64_t page, const struct access *who)
{
	/* In a system call the kernel would try again for ever, never reaching the stop.  So it would
	 * in writing a signal's frame, which looks like an instruction's write, but comes twice. */
	if (who->call || watch->hit_page == page)
		return false;
	watch->hit_page = page;
	watch->hit = *who;
	return kill(vessel, SIGSTOP) == 0;
}

