#define _GNU_SOURCE
#include "pager/tracker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pager/pager.h"

/* Each, by the name of its file. */
#define TRACKERS(X) X(wp_sync) X(wp_async) X(soft_dirty) X(compare)

#define DECLARED(name) extern const struct tracker_kind tracker_##name;
#define LISTED(name) &tracker_##name,
TRACKERS(DECLARED)
static const struct tracker_kind *const kinds[] = {TRACKERS(LISTED)};

const struct tracker_kind *tracker_named(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	return NULL;
}

static const struct tracker_kind *kind_of(const struct pager *pager)
{
	return pager->tracker.kind;
}

void tracker_init(struct tracker *tracker)
{
	*tracker = (struct tracker){.kind = &tracker_wp_sync, .pagemap_fd = -1, .clear_fd = -1};
}

void tracker_deinit(struct tracker *tracker)
{
	free(tracker->fed.at);
	tracker->fed.at = NULL;
	tracker->fed.count = tracker->fed.room = 0;
}

uint64_t tracker_features(const struct tracker_kind *kind, uint64_t offered, uint64_t *lacking)
{
	uint64_t needed = kind->needed | UFFD_FEATURE_THREAD_ID;
	uint64_t useful = kind->useful | UFFD_FEATURE_POISON | UFFD_FEATURE_EXACT_ADDRESS;

	if (lacking)
		*lacking = needed & ~offered;
	return (needed | useful) & offered;
}

int tracker_start(struct pager *pager, struct error *error)
{
	pager->tracker.ran = pager->tracker.stale = false;
	pager->tracker.fed.count = 0;
	return kind_of(pager)->start ? kind_of(pager)->start(pager, error) : 0;
}

void tracker_stop(struct pager *pager)
{
	struct tracker *tracker = &pager->tracker;

	if (tracker->pagemap_fd >= 0)
		close(tracker->pagemap_fd);
	if (tracker->clear_fd >= 0)
		close(tracker->clear_fd);
	tracker->pagemap_fd = tracker->clear_fd = -1;
	tracker->ran = tracker->stale = false;
}

int tracker_copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	return kind_of(pager)->copy(pager, page, from, protect);
}

int tracker_before_feed(struct pager *pager)
{
	return kind_of(pager)->before_feed ? kind_of(pager)->before_feed(pager) : 0;
}

int tracker_after_feed(struct pager *pager, uint64_t page)
{
	return kind_of(pager)->after_feed ? kind_of(pager)->after_feed(pager, page) : 0;
}

/* Killed from outside: there is nothing to look at, and the next resume will tell. */
static bool is_gone(pid_t vessel)
{
	siginfo_t info = {.si_pid = 0};

	return waitid(P_PID, (id_t)vessel, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid;
}

static int collect(struct pager *pager)
{
	int rc = pager->running && kind_of(pager)->collect ? kind_of(pager)->collect(pager) : 0;

	return rc < 0 && is_gone(pager->vessel) ? 0 : rc;
}

int tracker_sync(struct pager *pager)
{
	if (!pager->tracker.ran)
		return 0;
	int rc = collect(pager);
	if (rc == 0)
		pager->tracker.ran = false;
	return rc;
}

int tracker_about_to_run(struct pager *pager)
{
	const struct tracker_kind *is = kind_of(pager);
	int rc = is->about_to_run ? is->about_to_run(&pager->tracker) : 0;

	pager->tracker.ran = !is->tells_first;
	return rc == -ESRCH ? 0 : rc;
}

int tracker_before_mappings(struct pager *pager, bool pages_go)
{
	const struct tracker_kind *is = kind_of(pager);

	return (pages_go ? is->collects_before_pages_go : is->collects_before_mappings) ? collect(pager) : 0;
}

int tracker_moved(struct pager *pager, uint64_t page)
{
	return kind_of(pager)->moved ? kind_of(pager)->moved(pager, page) : 0;
}

int tracker_ignore(struct pager *pager, uint64_t page)
{
	if (!pager->running || !kind_of(pager)->ignore)
		return 0;
	int rc = kind_of(pager)->ignore(pager, page);
	return rc == -ENOENT || rc == -ESRCH ? 0 : rc;
}
