#define _GNU_SOURCE
#include "vessel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gate.h"
#include "uffd.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define USER_END 0x7ffffffff000ul /* TASK_SIZE_MAX of x86-64 with four-level paging */
/* Runs in the parent's memory (vfork): system calls only. */
static void __attribute__((noreturn)) child(int image, int null_fd, int out_fd)
{
	static char *const argv[] = {(char *)"vessel", NULL}, *const envp[] = {NULL};
	struct rlimit none = {0, 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	setrlimit(RLIMIT_CORE, &none);
	/* Python ignores these; a program starts with the defaults (Python's signal module). */
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	/* Same addresses for the same mmap calls, each time a call is repeated. */
	personality(ADDR_NO_RANDOMIZE);
	if (dup2(null_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(out_fd, 2) < 0)
		_exit(126);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(125);
	syscall(SYS_execveat, image, "", argv, envp, AT_EMPTY_PATH);
	_exit(127);
}

int vessel_wait_stop(struct vessel *vessel, int *status)
{
	for (;;) {
		pid_t got = waitpid(vessel->pid, status, __WALL);
		if (got == vessel->pid) {
			pager_settle(vessel->pager);
			if (WIFSTOPPED(*status))
				return 0;
			vessel->pid = 0; /* reaped: the number is not ours any more */
			return -ESRCH;
		}
		if (got < 0 && errno != EINTR)
			return -errno;
	}
}

static int spawn(struct vessel *vessel, int image)
{
	int pipes[2], status = 0;
	sigset_t all, old;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return fail(&vessel->error, errno, "/dev/null");
	if (pipe2(pipes, O_CLOEXEC) < 0) {
		close(null_fd);
		return fail(&vessel->error, errno, "pipe for the program's output");
	}
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	/* The child must not run the parent's handlers in the parent's memory; and what it blocks
	 * at exec it inherits, so it unblocks nothing here: the recorded mask is set later. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pid_t pid = vfork();
	if (pid == 0)
		child(image, null_fd, pipes[1]);
	int failed = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(null_fd);
	close(pipes[1]);
	if (pid < 0) {
		close(pipes[0]);
		return fail(&vessel->error, failed, "vfork");
	}
	vessel->pid = pid;
	vessel->output_fd = pipes[0];
	if (vessel_wait_stop(vessel, &status) < 0) {
		vessel->pid = 0;
		return fail(&vessel->error, WEXITSTATUS(status) == 125 ? EPERM : ENOEXEC,
			    WEXITSTATUS(status) == 125 ? "ptrace is not allowed here" :
							 "could not execute the vessel");
	}
	/* EXITKILL: the vessel never outlives us.  TRACESECCOMP: the policy's stops. */
	long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD;
	if (ptrace(PTRACE_SETOPTIONS, pid, NULL, options) < 0)
		return fail(&vessel->error, errno, "PTRACE_SETOPTIONS");
	return 0;
}

static struct gate_call call6(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return (struct gate_call){.nr = nr, .args = {a, b, c, d, e}};
}

/* Neighbours with the same protection become one mapping. */
static bool same_mapping(const struct region *left, const struct region *right)
{
	return left->end == right->start && left->prot == right->prot &&
	       (left->kind == REGION_UNAVAILABLE) == (right->kind == REGION_UNAVAILABLE);
}

#define UFFD_CALLS 3
#define PLAN_FIXED (3 + UFFD_CALLS)

/* One way to a userfaultfd (uffd.h): three calls, of which the second gives the descriptor.  The
 * vessel has no other descriptor than 0 to 2, so the device gets number 3.  (poll(2) works on a
 * non-blocking userfaultfd only.) */
static void uffd_calls(const struct vessel *vessel, int way, struct gate_call *calls)
{
	const uint64_t flags = O_CLOEXEC | O_NONBLOCK, device = 3;

	if (way == UFFD_DEVICE) {
		calls[0] = call6(SYS_openat, (uint64_t)AT_FDCWD, vessel->gate + GATE_DEVICE_AT,
				 O_RDWR | O_CLOEXEC, 0, 0);
		calls[1] = call6(SYS_ioctl, device, USERFAULTFD_IOC_NEW, flags, 0, 0);
		calls[2] = call6(SYS_close, device, 0, 0, 0, 0);
		return;
	}
	calls[0] = calls[2] = call6(SYS_getppid, 0, 0, 0, 0, 0);
	calls[1] = call6(SYS_userfaultfd, flags | (way == UFFD_USER_MODE ? UFFD_USER_MODE_ONLY : 0), 0, 0,
			 0, 0);
}

static size_t plan(const struct vessel *vessel, struct gate_call *calls)
{
	const struct regions *regions = &vessel->pager->regions;
	uint64_t gate_end = vessel->gate + vessel->gate_bytes;
	size_t count = 0;

	/* Everything that exec made, but the gate; and what the server itself was started with. */
	calls[count++] = call6(SYS_munmap, PAGE_BYTES, vessel->gate - PAGE_BYTES, 0, 0, 0);
	calls[count++] = call6(SYS_munmap, gate_end, USER_END - gate_end, 0, 0, 0);
	calls[count++] = call6(SYS_close_range, 3, ~0u, 0, 0, 0);
	uffd_calls(vessel, vessel->how, calls + count);
	count += UFFD_CALLS;
	for (size_t i = 0, j; i < regions->count; i = j) {
		const struct region *first = &regions->at[i];
		for (j = i + 1; j < regions->count && same_mapping(&regions->at[j - 1], &regions->at[j]); j++)
			;
		/* Unavailable pages are reserved without access: a touch faults, nothing lands there. */
		int prot = first->kind == REGION_UNAVAILABLE ? PROT_NONE : first->prot;
		calls[count++] = call6(SYS_mmap, first->start, regions->at[j - 1].end - first->start,
				       (uint64_t)prot,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
				       (uint64_t)-1);
	}
	return count;
}

/* The way that was chosen may be closed to the vessel: then the others, in their order. */
static int64_t other_way(struct vessel *vessel, int64_t number)
{
	struct gate_call calls[UFFD_CALLS + 1];

	for (int way = 0; way < UFFD_WAYS && number < 0; way++) {
		uffd_calls(vessel, way, calls);
		int rc = vessel_batch(vessel, calls, UFFD_CALLS);
		if (rc < 0)
			return rc;
		number = calls[1].result;
		vessel->how = way;
	}
	return number;
}

static int take_uffd(struct vessel *vessel, int64_t number)
{
	const struct engine *engine = &vessel->pager->engine;
	uint64_t features = 0, lacking = 0;

	if (number < 0)
		number = other_way(vessel, number);
	if (number < 0)
		return fail(&vessel->error, (int)-number,
			    "userfaultfd is forbidden here: as root, sysctl vm.unprivileged_userfaultfd=1, "
			    "or give this user access to /dev/userfaultfd");
	vessel->pidfd = (int)syscall(SYS_pidfd_open, vessel->pid, 0);
	if (vessel->pidfd < 0)
		return fail(&vessel->error, errno, "pidfd_open");
	int uffd = (int)syscall(SYS_pidfd_getfd, vessel->pidfd, (int)number, 0);
	if (uffd < 0)
		return fail(&vessel->error, errno, "pidfd_getfd (Linux 5.6 or newer is needed)");
	int rc = uffd_api(uffd, engine_features(engine->kind, engine->offer.features, &lacking), &features);
	if (rc == 0 && lacking)
		rc = -EOPNOTSUPP;
	if (rc < 0) {
		close(uffd);
		return fail(&vessel->error, -rc, "this kernel's userfaultfd lacks what the engine needs "
						 "(features %#lx)", lacking);
	}
	/* The program must find its own descriptor numbers, and no way to the pager. */
	struct gate_call calls[5] = {
		call6(SYS_close, (uint64_t)number, 0, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NAME, vessel->gate + GATE_NAME_AT, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		call6(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, vessel->gate + GATE_FILTER_AT, 0, 0),
	};
	rc = vessel_batch(vessel, calls, 4);
	if (rc == 0 && calls[3].result < 0)
		rc = fail(&vessel->error, (int)-calls[3].result, "seccomp filter");
	if (rc < 0) {
		close(uffd);
		return rc;
	}
	return uffd;
}

static int check_plan(struct vessel *vessel, const struct gate_call *calls, size_t count, int uffd)
{
	for (size_t i = 0; i < count; i++) {
		const struct gate_call *call = &calls[i];
		if (i < 2 && call->result < 0)
			return fail(&vessel->error, (int)-call->result, "clearing the vessel");
		if (i < PLAN_FIXED)
			continue;
		if ((uint64_t)call->result != call->args[0])
			return fail(&vessel->error, (int)-call->result, "mapping %#lx-%#lx in the vessel",
				    call->args[0], call->args[0] + call->args[1]);
		const struct region *region = regions_find(&vessel->pager->regions, call->args[0]);
		if (region->kind == REGION_UNAVAILABLE || uffd < 0)
			continue;
		int rc = uffd_register(uffd, call->args[0], call->args[1],
				       engine_protects(&vessel->pager->engine));
		if (rc < 0)
			return fail(&vessel->error, -rc, "registering %#lx-%#lx", call->args[0],
				    call->args[0] + call->args[1]);
	}
	return 0;
}

static int build(struct vessel *vessel, struct gate_call *calls)
{
	size_t count = plan(vessel, calls);

	calls[count].nr = -1;
	int image = gate_image(vessel, calls, count + 1);
	if (image < 0)
		return image;
	int rc = spawn(vessel, image);
	close(image);
	if (rc == 0)
		rc = gate_run(vessel);
	if (rc == 0)
		rc = gate_copy(vessel, calls, count * sizeof(*calls), false);
	if (rc == 0)
		rc = check_plan(vessel, calls, count, -1);
	if (rc < 0)
		return rc;
	int uffd = take_uffd(vessel, calls[PLAN_FIXED - 2].result);
	if (uffd < 0)
		return uffd;
	rc = check_plan(vessel, calls, count, uffd);
	if (rc < 0) {
		close(uffd);
		return rc;
	}
	return pager_start(vessel->pager, vessel->pid, uffd, &vessel->error);
}

void vessel_init(struct vessel *vessel)
{
	*vessel = (struct vessel){.pidfd = -1, .output_fd = -1, .cpu = -1};
}

int vessel_create(struct vessel *vessel, struct pager *pager)
{
	size_t entries = pager->regions.count + PLAN_FIXED + 4;
	uint64_t bytes = (entries * sizeof(struct gate_call) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	struct gate_call *calls = calloc(entries, sizeof(*calls));

	vessel->pager = pager;
	vessel->pid = 0;
	vessel->pidfd = vessel->output_fd = -1;
	vessel->cpu = -1;
	if (!pager->engine.offer.known)
		uffd_negotiate(&pager->engine.offer);
	vessel->how = pager->engine.offer.way < 0 ? UFFD_DEVICE : pager->engine.offer.way;
	vessel->stop_sent = vessel->stop_stale = vessel->kernel_changed = false;
	if (!calls)
		return fail(&vessel->error, ENOMEM, "gate table");
	vessel_share_cpu(vessel);
	int rc = gate_choose(vessel, PAGE_BYTES + bytes);
	if (rc == 0)
		rc = build(vessel, calls);
	vessel_leave_cpu(vessel);
	free(calls);
	if (rc < 0) {
		struct error error = vessel->error;
		vessel_destroy(vessel);
		vessel->error = error;
	}
	return rc;
}

void vessel_destroy(struct vessel *vessel)
{
	int status;

	if (vessel->pid > 0) {
		kill(vessel->pid, SIGKILL);
		while (waitpid(vessel->pid, &status, __WALL) == vessel->pid && WIFSTOPPED(status))
			;
		vessel->pid = 0;
	}
	if (vessel->pager)
		pager_stop(vessel->pager);
	if (vessel->pidfd >= 0)
		close(vessel->pidfd);
	if (vessel->output_fd >= 0)
		close(vessel->output_fd);
	vessel->pidfd = vessel->output_fd = -1;
}
