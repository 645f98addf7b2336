#define _GNU_SOURCE
#include "pager/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernel/now.h"
#include "kernel/proc.h"
#include "pager/feed.h"
#include "pager/memory.h"
#include "pager/note.h"

static int read_memory(void *context, uint64_t address, uint8_t *to, size_t len, size_t *done)
{
	return memory_read(context, address, to, len, done);
}

int pager_init(struct pager *pager)
{
	*pager = (struct pager){.uffd = -1, .wake_fd = -1, .mem_fd = -1, .syscall_fd = -1, .cpu = -1};
	pager->code = (struct code_space){.read = read_memory, .context = pager, .regions = &pager->regions};
	tracker_init(&pager->tracker);
	pthread_mutex_init(&pager->lock, NULL);
	return pages_init(&pager->pages);
}

void pager_deinit(struct pager *pager)
{
	pager_stop(pager);
	pages_deinit(&pager->pages);
	tracker_deinit(&pager->tracker);
	regions_deinit(&pager->regions);
	regions_deinit(&pager->at_tx);
	regions_deinit(&pager->at_call);
	regions_deinit(&pager->recorded);
	maps_deinit(&pager->maps);
	fed_deinit(&pager->fed_log);
	touches_deinit(&pager->touches);
	watch_deinit(&pager->watch);
	code_forget(&pager->code);
	pthread_mutex_destroy(&pager->lock);
}

/* The page cannot be had: its reader gets SIGBUS.  Where the kernel has no UFFDIO_POISON (before
 * 6.6) a signal ends the wait: a thread sleeps interruptibly in a userfault of its own code
 * (fs/userfaultfd.c), stops at the very instruction, and the stop is told as SIGBUS (run.c).  A
 * system call would only fault again: there is nothing but the end. */
static void lose(struct pager *pager, const struct uffd_msg *msg, bool protected, bool program)
{
	char first = 0;

	pager->lost_page = msg->arg.pagefault.address & ~(PAGE_BYTES - 1);
	if (!protected && uffd_poison_page(pager->uffd, pager->lost_page) == 0)
		return;
	/* "-1 SP PC": in no system call, proc_pid_syscall(5). */
	if (program && pread(pager->syscall_fd, &first, 1, 0) == 1 && first == '-') {
		pager->fault_address = msg->arg.pagefault.address;
		if (kill(pager->vessel, SIGSTOP) == 0)
			return;
	}
	pager->fault_address = 0;
	kill(pager->vessel, SIGKILL);
}

/* What keeps the vessel from going on is our lack, or this machine's: the call ends, and is told why.  A
 * system call of the vessel's would only fault again. */
static void give_up(struct pager *pager, uint64_t page, int error)
{
	char first = 0;

	pager->failure = error;
	pager->failure_page = page;
	bool inside = page && pread(pager->syscall_fd, &first, 1, 0) == 1 && first == '-';
	kill(pager->vessel, inside ? SIGSTOP : SIGKILL);
}

struct fault {
	uint64_t page;
	bool protected; /* the page is there */
	bool write;
	bool program;   /* the vessel's own; a fault of our own process_vm_* calls carries our TID */
	bool beyond;    /* behind the end of a mapped file */
	bool has;       /* its bytes can be had */
	const struct region *region;
	struct access who;
};

static struct fault fault_of(struct pager *pager, const struct uffd_msg *msg)
{
	struct fault fault = {
		.page = msg->arg.pagefault.address & ~(PAGE_BYTES - 1),
		.protected = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
		.write = msg->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE),
		.program = msg->arg.pagefault.feat.ptid == (uint32_t)pager->vessel,
		.who = {.address = msg->arg.pagefault.address},
	};

	fault.region = regions_find(&pager->regions, fault.page);
	fault.beyond = !fault.protected && fault.region && (fault.region->flags & REGION_BEYOND);
	fault.has = fault.region && fault.region->kind != REGION_UNAVAILABLE && !fault.beyond;
	/* Who it was is asked only where it is told: it costs more than the rest. */
	if (fault.program && (tracker_tells_first(&pager->tracker) || pager->touches.on))
		note_access(pager, &fault.who);
	return fault;
}

/* Whether one page more would be too many: then the vessel was told to stop. */
static bool is_over(struct pager *pager, const struct fault *fault)
{
	const struct page_slot *slot = pages_find(&pager->pages, fault->page);

	if (!fault->program || (fault->protected && !(slot && slot->shared)))
		return false;
	if (!pager->limit || pager->pages.grown < pager->limit || pager->over_limit)
		return false;
	/* Not answered: the signal ends the wait, and the touch comes again if it may go on.  But the
	 * kernel's own touches come again at once: what it is at may still finish. */
	pager->over_limit = true;
	kill(pager->vessel, SIGSTOP);
	return !fault->who.call;
}

/* 1: nothing was recorded of the page, and it is there now; 0: it is another's. */
static int serve_zeros(struct pager *pager, const struct fault *fault)
{
	if (!fault->has || fault->write || !fault->program)
		return 0;
	int rc = feed_zeros(pager, fault->region, fault->page);
	if (rc == 1 && pager->touches.on)
		note_touch(pager, fault->region, &fault->who, false);
	return rc;
}

/* A write to a page that is there; `w`: as it was noted, or NULL. */
static int serve_protected(struct pager *pager, const struct fault *fault, struct written *w)
{
	if (pager->watch.pages && watch_holds(&pager->watch, fault->page) && fault->program &&
	    watch_stop(&pager->watch, pager->vessel, fault->page, &fault->who))
		return 0; /* it is not to be made now */
	pages_set_own(&pager->pages, pages_find(&pager->pages, fault->page));
	int rc = uffd_protect(pager->uffd, fault->page, PAGE_BYTES, false);
	if (w && rc == 0)
		w->armed = false;
	return rc;
}

static int serve_fault(struct pager *pager, const struct fault *fault)
{
	int writer = !fault->program ? WRITER_GDB : pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;
	struct written *w = NULL;

	if (fault->write && !fault->beyond && tracker_tells_first(&pager->tracker)) {
		w = note_write(pager, fault->page, writer, &fault->who);
		if (!w)
			return pager->note_error;
	}
	if (fault->protected)
		return serve_protected(pager, fault, w);
	if (!fault->has)
		return -EFAULT;
	if (pager->touches.on && fault->program)
		note_touch(pager, fault->region, &fault->who, fault->write);
	/* A write to a missing page needs one round trip: fed unprotected, counted dirty; but a
	 * watched page stays protected, and faults again. */
	bool watched = pager->watch.pages && watch_holds(&pager->watch, fault->page);
	return feed_touched(pager, fault->region, fault->page, !fault->write || watched);
}

static void serve(struct pager *pager, const struct uffd_msg *msg)
{
	struct fault fault = fault_of(pager, msg);

	if (fault.beyond && uffd_poison_page(pager->uffd, fault.page) == 0)
		return; /* SIGBUS, as it should be */
	int rc = serve_zeros(pager, &fault);
	if (rc == 1 || (rc == 0 && is_over(pager, &fault)))
		return;
	if (rc == 0)
		rc = serve_fault(pager, &fault);
	/* ENOENT: the mapping went; ESRCH, ENOSPC: the process went.  Both are its own doing. */
	if (rc >= 0 || rc == -ENOENT || rc == -ESRCH || rc == -ENOSPC)
		return;
	if (rc == -EFAULT || rc == -EIO)
		lose(pager, msg, fault.protected, fault.program);
	else
		give_up(pager, fault.page, -rc);
}

/* One event, if there is one.  -errno: there will be no more. */
static int serve_one(struct pager *pager)
{
	struct uffd_msg msg;
	uint64_t began = now_ns();
	int rc = 0;

	/* Read under the lock: a signal can end the vessel's wait, and then nothing may be under
	 * way here once pager_settle has passed. */
	pthread_mutex_lock(&pager->lock);
	ssize_t got = read(pager->uffd, &msg, sizeof(msg));
	if (got == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT) {
		serve(pager, &msg);
		pager->faults++;
		pager->fault_ns += now_ns() - began;
	} else if (got < 0 && errno != EAGAIN && errno != EINTR) {
		rc = -errno;
	}
	pthread_mutex_unlock(&pager->lock);
	return rc;
}

static void *serve_all(void *argument)
{
	struct pager *pager = argument;
	struct pollfd fds[2] = {{pager->uffd, POLLIN, 0}, {pager->wake_fd, POLLIN, 0}};
	int rc = 0;

	while (rc == 0) {
		if (poll(fds, 2, -1) < 0) {
			rc = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (fds[1].revents || (fds[0].revents & POLLHUP)) /* the end; the process went */
			return NULL;
		if (fds[0].revents & POLLIN)
			rc = serve_one(pager);
		else if (fds[0].revents)
			rc = -EIO;
	}
	/* Nobody will answer the vessel any more. */
	pthread_mutex_lock(&pager->lock);
	give_up(pager, 0, -rc);
	pthread_mutex_unlock(&pager->lock);
	return NULL;
}

int pager_start(struct pager *pager, pid_t vessel, int uffd, struct error *error)
{
	sigset_t all, old;

	pager->vessel = vessel;
	pager->uffd = uffd;
	pager->cpu = -1; /* a new thread */
	pager->fault_address = pager->zeros_low = pager->zeros_high = 0;
	pager->failure = 0;
	pager->mem_fd = proc_open(vessel, "mem", O_RDWR, error);
	if (pager->mem_fd < 0)
		return pager->mem_fd;
	pager->syscall_fd = proc_open(vessel, "syscall", O_RDONLY, error);
	if (pager->syscall_fd < 0)
		return pager->syscall_fd;
	int rc = tracker_start(pager, error);
	if (rc < 0)
		return rc;
	pager->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (pager->wake_fd < 0)
		return fail(error, errno, "eventfd");
	/* Every signal, SIGCHLD above all, belongs to the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = pthread_create(&pager->thread, NULL, serve_all, pager);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return fail(error, rc, "pager thread");
	pager->running = true;
	return 0;
}

void pager_stop(struct pager *pager)
{
	if (pager->running) {
		uint64_t one = 1;
		ssize_t rc = write(pager->wake_fd, &one, sizeof(one));
		(void)rc;
		pthread_join(pager->thread, NULL);
		pager->running = false;
	}
	tracker_stop(pager);
	int *fds[] = {&pager->uffd, &pager->wake_fd, &pager->mem_fd, &pager->syscall_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	pager->breakpoint_count = 0;
	pages_forget_present(&pager->pages);
}

void pager_pin(struct pager *pager, int cpu)
{
	cpu_set_t set;

	if (!pager->running || pager->cpu == cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(pager->thread, sizeof(set), &set);
	pager->cpu = cpu;
}
