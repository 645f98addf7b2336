#define _GNU_SOURCE
#include "vessel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
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

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif
#define USER_END 0x7ffffffff000ul /* TASK_SIZE_MAX of x86-64 with four-level paging */
/* Runs in the parent's memory (vfork): system calls only. */
static void __attribute__((noreturn)) child(int image, int null_fd, int out_fd, const char *cwd)
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
	if (out_fd >= 0) {
		if (dup2(null_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(out_fd, 2) < 0)
			_exit(126);
		if (chdir(cwd) < 0 && chdir("/") < 0)
			_exit(126);
	} else {
		/* It has no descriptor at all: those of the program lie in the server. */
		for (int fd = 0; fd < 3; fd++)
			close(fd);
	}
	syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
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

/* Its stdin is empty, its stdout and stderr a pipe to us: with `syscalls all` only. */
static int make_pipe(struct vessel *vessel, int pipes[2])
{
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return fail(&vessel->error, errno, "pipe for the program's output");
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	return 0;
}

static int spawn(struct vessel *vessel, int image)
{
	int pipes[2] = {-1, -1}, status = 0;
	sigset_t all, old;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return fail(&vessel->error, errno, "/dev/null");
	if (vessel->policy.level == LEVEL_ALL && make_pipe(vessel, pipes) < 0) {
		close(null_fd);
		return -EMFILE;
	}
	/* The child must not run the parent's handlers in the parent's memory; and what it blocks
	 * at exec it inherits, so it unblocks nothing here: the recorded mask is set later. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pid_t pid = vfork();
	if (pid == 0)
		child(image, null_fd, pipes[1], vessel->record.cwd);
	int failed = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(null_fd);
	if (pipes[1] >= 0)
		close(pipes[1]);
	if (pid < 0) {
		if (pipes[0] >= 0)
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

static size_t plan(const struct vessel *vessel, struct gate_call *calls)
{
	const struct regions *regions = &vessel->pager->regions;
	uint64_t gate_end = vessel->gate + vessel->gate_bytes;
	size_t count = 0;

	/* Everything that exec made, but the gate.  (poll(2) works on a non-blocking userfaultfd only.) */
	calls[count++] = call6(SYS_munmap, PAGE_BYTES, vessel->gate - PAGE_BYTES, 0, 0, 0);
	calls[count++] = call6(SYS_munmap, gate_end, USER_END - gate_end, 0, 0, 0);
	calls[count++] = call6(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK |
			       (vessel->pager->user_mode_only ? UFFD_USER_MODE_ONLY : 0), 0, 0, 0, 0);
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

#define PLAN_FIXED 3

/* Where the plain system call is forbidden: through /dev/userfaultfd, if that may be opened. */
static int uffd_from_device(struct vessel *vessel)
{
	struct gate_call calls[3];
	static const char device[] = "/dev/userfaultfd";
	struct iovec here = {(void *)device, sizeof(device)};
	struct iovec there = {(void *)(vessel->gate + GATE_SCRATCH_AT), sizeof(device)};

	if (process_vm_writev(vessel->pid, &here, 1, &there, 1, 0) != (ssize_t)sizeof(device))
		return -errno;
	calls[0] = call6(SYS_openat, (uint64_t)AT_FDCWD, vessel->gate + GATE_SCRATCH_AT, O_RDWR | O_CLOEXEC, 0, 0);
	int rc = vessel_batch(vessel, calls, 1);
	if (rc < 0 || calls[0].result < 0)
		return rc < 0 ? rc : (int)calls[0].result;
	int64_t dev = calls[0].result;
	calls[0] = call6(SYS_ioctl, (uint64_t)dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK, 0, 0);
	calls[1] = call6(SYS_close, (uint64_t)dev, 0, 0, 0, 0);
	rc = vessel_batch(vessel, calls, 2);
	return rc < 0 ? rc : (int)calls[0].result;
}

/* The listener for notifications comes to us, and to us alone. */
static int take_listener(struct vessel *vessel, int64_t number)
{
	struct gate_call calls[2] = {call6(SYS_close, (uint64_t)number, 0, 0, 0, 0), {.nr = -1}};

	vessel->listener = (int)syscall(SYS_pidfd_getfd, vessel->pidfd, (int)number, 0);
	if (vessel->listener < 0)
		return fail(&vessel->error, errno, "pidfd_getfd");
	int rc = gate_copy(vessel, calls, sizeof(calls), true);
	return rc < 0 ? rc : gate_run(vessel, vessel->policy.rules[SYS_close].action != POLICY_RUN);
}

/* Out of the program's reach for good: no descriptor of ours, no capability, the filter. */
static int shut_in(struct vessel *vessel, int64_t number, bool notify)
{
	uint64_t flags = notify ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0;
	struct gate_call calls[6] = {
		call6(SYS_close, (uint64_t)number, 0, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NAME, vessel->gate + GATE_NAME_AT, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		call6(SYS_capset, vessel->gate + GATE_NOTHING_AT, vessel->gate + GATE_NOTHING_AT + 8, 0, 0, 0),
		call6(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, vessel->gate + GATE_FILTER_AT, 0, 0),
	};
	int rc = vessel_batch(vessel, calls, 5);

	if (rc == 0 && calls[4].result == -EINVAL && notify) { /* WAIT_KILLABLE_RECV: Linux 5.19 */
		calls[0] = calls[4];
		calls[0].args[1] = SECCOMP_FILTER_FLAG_NEW_LISTENER;
		rc = vessel_batch(vessel, calls, 1);
		calls[4] = calls[0];
	}
	if (rc < 0)
		return rc;
	if (calls[3].result < 0)
		return fail(&vessel->error, (int)-calls[3].result, "dropping capabilities");
	if (calls[4].result < 0) {
		vessel->no_listener = notify; /* one is in use further out (a container's): without, then */
		return fail(&vessel->error, (int)-calls[4].result, "seccomp filter");
	}
	rc = notify ? take_listener(vessel, calls[4].result) : 0;
	return rc < 0 ? rc : gate_close(vessel);
}

static int take_uffd(struct vessel *vessel, int64_t number)
{
	uint64_t features = 0, present = 0;
	int how;

	if (number < 0 && !vessel->pager->user_mode_only) {
		vessel->how = 1;
		number = uffd_from_device(vessel);
	}
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
	uint64_t wanted = UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	if (uffd_probe(&present, &how) == 0)
		wanted |= present & (UFFD_FEATURE_POISON | UFFD_FEATURE_EXACT_ADDRESS);
	int rc = uffd_api(uffd, wanted, &features);
	if (rc < 0) {
		close(uffd);
		return fail(&vessel->error, -rc,
			    "userfaultfd write-protection (Linux 5.7 or newer is needed)");
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
		int rc = uffd_register(uffd, call->args[0], call->args[1]);
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
	bool notify = !vessel->no_listener;
	int image = gate_image(vessel, calls, count + 1, notify);
	if (image < 0)
		return image;
	int rc = spawn(vessel, image);
	close(image);
	if (rc == 0)
		rc = gate_run(vessel, false);
	if (rc == 0)
		rc = gate_copy(vessel, calls, count * sizeof(*calls), false);
	if (rc == 0)
		rc = check_plan(vessel, calls, count, -1);
	if (rc < 0)
		return rc;
	int uffd = take_uffd(vessel, calls[PLAN_FIXED - 1].result);
	if (uffd < 0)
		return uffd;
	rc = check_plan(vessel, calls, count, uffd);
	if (rc == 0)
		rc = shut_in(vessel, calls[PLAN_FIXED - 1].result, notify);
	if (rc < 0) {
		close(uffd);
		return rc;
	}
	return pager_start(vessel->pager, vessel->pid, uffd, &vessel->error);
}

void vessel_init(struct vessel *vessel)
{
	*vessel = (struct vessel){.pidfd = -1, .output_fd = -1, .listener = -1, .cpu = -1};
	desk_init(&vessel->desk, &vessel->record);
	desk_init(&vessel->past, &vessel->record);
}

int vessel_create(struct vessel *vessel, struct pager *pager)
{
	size_t entries = pager->regions.count + PLAN_FIXED + 4;
	uint64_t bytes = (entries * sizeof(struct gate_call) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	struct gate_call *calls = calloc(entries, sizeof(*calls));
	bool listener = !vessel->no_listener;
	uint64_t features;
	int how;

	vessel->pager = pager;
	vessel->pid = 0;
	vessel->pidfd = vessel->output_fd = vessel->listener = -1;
	vessel->cpu = -1;
	vessel->how = 0;
	vessel->alternate_size = 0;
	vessel->timed_out = vessel->waiting = false;
	vessel->held_signals = 0;
	pager->over_limit = false;
	pager->user_mode_only = uffd_probe(&features, &how) == 0 && how == 2;
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
		if (listener && vessel->no_listener)
			return vessel_create(vessel, pager);
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
	if (vessel->listener >= 0)
		close(vessel->listener);
	vessel->pidfd = vessel->output_fd = vessel->listener = -1;
}
