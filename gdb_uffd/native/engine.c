#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine_look.h"
#include "pager.h"

void engine_init(struct engine *engine)
{
	*engine = (struct engine){.kind = ENGINE_WP_SYNC, .pagemap_fd = -1, .clear_fd = -1};
}

void engine_deinit(struct engine *engine)
{
	free(engine->fed);
	engine->fed = NULL;
	engine->fed_count = engine->fed_room = 0;
}

uint64_t engine_features(int kind, uint64_t offered, uint64_t *lacking)
{
	uint64_t needed = UFFD_FEATURE_THREAD_ID, useful = UFFD_FEATURE_POISON | UFFD_FEATURE_EXACT_ADDRESS;

	if (kind == ENGINE_WP_SYNC || kind == ENGINE_WP_ASYNC)
		needed |= UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	if (kind == ENGINE_WP_ASYNC) {
		needed |= UFFD_FEATURE_WP_ASYNC;
		useful |= UFFD_FEATURE_WP_UNPOPULATED;
	}
	if (lacking)
		*lacking = needed & ~offered;
	return (needed | useful) & offered;
}

static int open_proc(const struct pager *pager, const char *name, int flags, struct error *error)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pager->vessel, name);
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? fail(error, errno, "%s", path) : fd;
}

int engine_start(struct pager *pager, struct error *error)
{
	struct engine *engine = &pager->engine;

	engine->ran = engine->stale = false;
	engine->fed_count = 0;
	if (engine->kind == ENGINE_WP_ASYNC || engine->kind == ENGINE_SOFT_DIRTY) {
		engine->pagemap_fd = open_proc(pager, "pagemap", O_RDONLY, error);
		if (engine->pagemap_fd < 0)
			return engine->pagemap_fd;
	}
	if (engine->kind == ENGINE_SOFT_DIRTY) {
		engine->clear_fd = open_proc(pager, "clear_refs", O_WRONLY, error);
		if (engine->clear_fd < 0)
			return engine->clear_fd;
		engine->stale = true; /* new mappings count as written (Linux's soft-dirty.rst) */
	}
	return 0;
}

void engine_stop(struct pager *pager)
{
	struct engine *engine = &pager->engine;

	if (engine->pagemap_fd >= 0)
		close(engine->pagemap_fd);
	if (engine->clear_fd >= 0)
		close(engine->clear_fd);
	engine->pagemap_fd = engine->clear_fd = -1;
	engine->ran = engine->stale = false;
}

int engine_copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	if (pager->engine.kind != ENGINE_SOFT_DIRTY)
		return uffd_copy_page(pager->uffd, page, from, protect && engine_protects(&pager->engine));
	int rc = uffd_copy_page_unseen(pager->uffd, page, from);
	if (rc == 0)
		rc = soft_dirty_fed(&pager->engine, page);
	pager->engine.stale = true; /* the copy sets the bit */
	return rc;
}

int engine_serve(struct pager *pager, const struct region *region, uint64_t page, bool write)
{
	if (pager->engine.kind != ENGINE_SOFT_DIRTY)
		return pager_feed(pager, region, page, !write);
	/* Clearing clears every bit, so what stands is noted first, at each page. */
	int rc = soft_dirty_look(pager);
	if (rc == 0)
		rc = pager_feed(pager, region, page, false);
	if (rc == 0)
		rc = soft_dirty_clear(&pager->engine);
	if (rc == 0)
		rc = uffd_wake_page(pager->uffd, page);
	return rc;
}

int engine_populate(struct pager *pager, uint64_t page)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);
	bool clear = pager->engine.kind == ENGINE_SOFT_DIRTY && pager->engine.ran && !(slot && slot->present);

	int rc = clear ? soft_dirty_look(pager) : 0;
	if (rc == 0)
		rc = pager_populate(pager, page);
	if (rc == 0 && clear)
		rc = soft_dirty_clear(&pager->engine);
	return rc;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Killed from outside: there is nothing to look at, and the next resume will tell. */
static bool is_gone(pid_t vessel)
{
	siginfo_t info = {.si_pid = 0};

	return waitid(P_PID, (id_t)vessel, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid;
}

static int look(struct pager *pager)
{
	struct engine *engine = &pager->engine;
	uint64_t began = now_ns();
	int rc = 0;

	if (!pager->running)
		return 0;
	switch (engine->kind) {
	case ENGINE_WP_ASYNC:
		rc = wp_async_look(pager);
		break;
	case ENGINE_SOFT_DIRTY:
		rc = soft_dirty_look(pager);
		engine->stale = true;
		break;
	case ENGINE_COMPARE:
		rc = compare_look(pager);
		break;
	}
	engine->looks++;
	engine->look_ns += now_ns() - began;
	return rc < 0 && is_gone(pager->vessel) ? 0 : rc;
}

int engine_note(struct pager *pager, uint64_t page)
{
	struct access nobody = {0};
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;

	return pager_note_write(pager, page, writer, &nobody) ? 0 : -ENOMEM;
}

int engine_settle(struct pager *pager)
{
	if (!pager->engine.ran)
		return 0;
	int rc = look(pager);
	if (rc == 0)
		pager->engine.ran = false;
	return rc;
}

int engine_about_to_run(struct pager *pager)
{
	struct engine *engine = &pager->engine;

	if (engine->kind == ENGINE_WP_SYNC)
		return 0;
	/* Whatever made them stale has settled before, so no bit of the program's is lost. */
	int rc = engine->stale ? soft_dirty_clear(engine) : 0;
	engine->ran = true;
	return rc == -ESRCH ? 0 : rc;
}

int engine_before_layout(struct pager *pager, bool pages_go)
{
	/* Soft-dirty: a new mapping counts as written, and so does all of the one that it is joined to;
	 * the look leaves the bits stale, so that they are cleared before the program runs on. */
	if (pager->engine.kind == ENGINE_SOFT_DIRTY)
		return pages_go ? 0 : look(pager);
	return pages_go && pager->engine.kind != ENGINE_WP_SYNC ? look(pager) : 0;
}

int engine_moved(struct pager *pager, uint64_t page)
{
	return pager->engine.kind == ENGINE_SOFT_DIRTY ? soft_dirty_fed(&pager->engine, page) : 0;
}

int engine_disregard(struct pager *pager, uint64_t page)
{
	int rc = 0;

	if (!pager->running)
		return 0;
	switch (pager->engine.kind) {
	case ENGINE_WP_ASYNC:
		rc = uffd_protect(pager->uffd, page, PAGE_BYTES, true);
		break;
	case ENGINE_SOFT_DIRTY:
		pager->engine.stale = true;
		break;
	case ENGINE_COMPARE:
		rc = compare_refresh(pager, page);
		break;
	}
	return rc == -ENOENT || rc == -ESRCH ? 0 : rc;
}
