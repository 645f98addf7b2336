#define _GNU_SOURCE
#include "process/vessel.h"

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
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/cleanup.h"
#include "kernel/compat.h"
#include "kernel/walk.h"
#include "process/account.h"
#include "process/notify.h"
#include "process/restorer.h"
#include "process/task.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Runs in the parent's memory (vfork): system calls only. */
static void __attribute__((noreturn)) child(int image, int null_fd, int out_fd, int cwd_fd)
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
		if (fchdir(cwd_fd) < 0 && chdir("/") < 0)
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
	CLOSED int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return fail(&vessel->error, errno, "/dev/null");
	if (vessel->policy.level == LEVEL_ALL && make_pipe(vessel, pipes) < 0)
		return -EMFILE;
	CLOSED const int cwd_fd = pipes[1] < 0 ? -1 : walk(AT_FDCWD, vessel->identity.cwd, O_DIRECTORY, 0);
	/* The child must not run the parent's handlers in the parent's memory; and what it blocks
	 * at exec it inherits, so it unblocks nothing here: the recorded mask is set later. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pid_t pid = vfork();
	if (pid == 0)
		child(image, null_fd, pipes[1], cwd_fd);
	int failed = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pipes[1] >= 0)
		close(pipes[1]);
	if (pid < 0) {
		if (pipes[0] >= 0)
			close(pipes[0]);
		return fail(&vessel->error, failed, "vfork");
	}
	vessel->pid = pid;
	vessel->output_fd = pipes[0];
	if (task_wait_stop(vessel, &status) < 0) {
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

static struct restorer_call call6(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return (struct restorer_call){.nr = nr, .args = {a, b, c, d, e}};
}

/* Neighbours with the same protection become one mapping. */
static bool same_mapping(const struct region *left, const struct region *right)
{
	return left->end == right->start && left->prot == right->prot &&
	       region_is_reserved(left) == region_is_reserved(right);
}

#define UFFD_CALLS 3
#define PLAN_FIXED (3 + UFFD_CALLS)

/* The vessel has no descriptor from this one on. */
static uint64_t first_descriptor(const struct vessel *vessel)
{
	return vessel->policy.level == LEVEL_ALL ? 3 : 0;
}

/* One way to a userfaultfd (uffd.h): three calls, of which the second gives the descriptor.  (poll(2)
 * works on a non-blocking userfaultfd only.) */
static void uffd_calls(const struct vessel *vessel, int way, struct restorer_call *calls)
{
	const uint64_t flags = O_CLOEXEC | O_NONBLOCK, device = first_descriptor(vessel);

	if (way == UFFD_DEVICE) {
		calls[0] = call6(SYS_openat, (uint64_t)AT_FDCWD, vessel->restorer + RESTORER_DEVICE_AT,
				 O_RDWR | O_CLOEXEC, 0, 0);
		calls[1] = call6(SYS_ioctl, device, USERFAULTFD_IOC_NEW, flags, 0, 0);
		calls[2] = call6(SYS_close, device, 0, 0, 0, 0);
		return;
	}
	calls[0] = calls[2] = call6(SYS_getppid, 0, 0, 0, 0, 0);
	calls[1] = call6(SYS_userfaultfd, flags | (way == UFFD_USER_MODE ? UFFD_USER_MODE_ONLY : 0), 0, 0,
			 0, 0);
}

static size_t plan(const struct vessel *vessel, struct restorer_call *calls)
{
	const struct regions *regions = &vessel->pager->regions;
	uint64_t restorer_end = vessel->restorer + vessel->restorer_bytes + VDSO_ROOM;
	size_t count = 0;

	/* Everything that exec made, but the restorer and what lies behind it; and what the server itself was started with. */
	calls[count++] = call6(SYS_munmap, PAGE_BYTES, vessel->restorer - PAGE_BYTES, 0, 0, 0);
	calls[count++] = call6(SYS_munmap, restorer_end, arch_user_end() - restorer_end, 0, 0, 0);
	calls[count++] = call6(SYS_close_range, first_descriptor(vessel), ~0u, 0, 0, 0);
	uffd_calls(vessel, vessel->how, calls + count);
	count += UFFD_CALLS;
	for (size_t i = 0, j; i < regions->count; i = j) {
		const struct region *first = &regions->at[i];
		for (j = i + 1; j < regions->count && same_mapping(&regions->at[j - 1], &regions->at[j]); j++)
			;
		/* Unavailable pages are reserved without access: a touch faults, nothing lands there. */
		int prot = region_is_reserved(first) ? PROT_NONE : first->prot;
		calls[count++] = call6(SYS_mmap, first->start, regions->at[j - 1].end - first->start,
				       (uint64_t)prot,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
				       (uint64_t)-1);
	}
	return count;
}

/* The listener for notifications comes to us, and to us alone. */
static int take_listener(struct vessel *vessel, int64_t number)
{
	struct restorer_call calls[2] = {call6(SYS_close, (uint64_t)number, 0, 0, 0, 0), {.nr = -1}};

	vessel->listener = (int)syscall(SYS_pidfd_getfd, vessel->pidfd, (int)number, 0);
	if (vessel->listener < 0)
		return fail(&vessel->error, errno, "pidfd_getfd");
	int rc = restorer_copy(vessel, calls, sizeof(calls), true);
	return rc < 0 ? rc : restorer_run(vessel, vessel->policy.rules[SYS_close].action != POLICY_RUN);
}

/* Out of the program's reach for good: no descriptor of ours, no capability, the filter. */
static int shut_in(struct vessel *vessel, int64_t number, bool notify)
{
	uint64_t flags = notify ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0;
	struct restorer_call calls[6] = {
		call6(SYS_close, (uint64_t)number, 0, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NAME, vessel->restorer + RESTORER_NAME_AT, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		call6(SYS_capset, vessel->restorer + RESTORER_NOTHING_AT, vessel->restorer + RESTORER_NOTHING_AT + 8, 0, 0, 0),
		call6(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, vessel->restorer + RESTORER_FILTER_AT, 0, 0),
	};
	int rc = restorer_batch(vessel, calls, 5);

	if (rc == 0 && calls[4].result == -EINVAL && notify) { /* WAIT_KILLABLE_RECV: Linux 5.19 */
		calls[0] = calls[4];
		calls[0].args[1] = SECCOMP_FILTER_FLAG_NEW_LISTENER;
		rc = restorer_batch(vessel, calls, 1);
		calls[4] = calls[0];
	}
	if (rc < 0)
		return rc;
	if (calls[3].result < 0)
		return fail(&vessel->error, (int)-calls[3].result, "dropping capabilities");
	if (calls[4].result < 0) {
		/* One is in use further out (a container's): without, then. */
		vessel->no_listener = vessel->other_way = notify;
		return fail(&vessel->error, (int)-calls[4].result, "seccomp filter");
	}
	rc = notify ? take_listener(vessel, calls[4].result) : 0;
	return rc < 0 ? rc : restorer_close(vessel);
}

static int take_uffd(struct vessel *vessel, int64_t number)
{
	const struct tracker *tracker = &vessel->pager->tracker;
	uint64_t features = 0, lacking = 0;

	if (number < 0 && vessel->how + 1 < UFFD_WAYS) {
		/* What was open to us may be closed to the vessel. */
		vessel->pager->tracker.offer.way = vessel->how + 1;
		vessel->other_way = true;
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
	int rc = uffd_api(uffd, tracker_features(tracker->kind, tracker->offer.features, &lacking), &features);
	if (rc == 0 && lacking)
		rc = -EOPNOTSUPP;
	if (rc < 0) {
		close(uffd);
		return fail(&vessel->error, -rc, "this kernel's userfaultfd lacks what the engine needs "
						 "(features %#lx)", lacking);
	}
	return uffd;
}

static int check_plan(struct vessel *vessel, const struct restorer_call *calls, size_t count, int uffd)
{
	for (size_t i = 0; i < count; i++) {
		const struct restorer_call *call = &calls[i];
		if (i < 2 && call->result < 0)
			return fail(&vessel->error, (int)-call->result, "clearing the vessel");
		if (i < PLAN_FIXED)
			continue;
		if ((uint64_t)call->result != call->args[0])
			return fail(&vessel->error, (int)-call->result, "mapping %#lx-%#lx in the vessel",
				    call->args[0], call->args[0] + call->args[1]);
		const struct region *region = regions_find(&vessel->pager->regions, call->args[0]);
		if (region_is_reserved(region) || uffd < 0)
			continue;
		int rc = uffd_register(uffd, call->args[0], call->args[1],
				       tracker_protects(&vessel->pager->tracker));
		if (rc < 0)
			return fail(&vessel->error, -rc, "registering %#lx-%#lx", call->args[0],
				    call->args[0] + call->args[1]);
	}
	return 0;
}

static int build(struct vessel *vessel, struct restorer_call *calls)
{
	size_t count = plan(vessel, calls);

	calls[count].nr = -1;
	bool notify = !vessel->no_listener;
	int image = restorer_image(vessel, calls, count + 1, notify);
	if (image < 0)
		return image;
	int rc = spawn(vessel, image);
	close(image);
	if (rc == 0)
		rc = restorer_keep_vdso(vessel);
	if (rc == 0 && vessel->vdso)
		rc = restorer_copy(vessel, calls, (count + 1) * sizeof(*calls), true);
	if (rc == 0)
		rc = restorer_run(vessel, false);
	if (rc == 0)
		rc = restorer_copy(vessel, calls, count * sizeof(*calls), false);
	if (rc == 0)
		rc = check_plan(vessel, calls, count, -1);
	if (rc < 0)
		return rc;
	int64_t uffd_number = calls[PLAN_FIXED - 2].result;
	int uffd = take_uffd(vessel, uffd_number);
	if (uffd < 0)
		return uffd;
	rc = check_plan(vessel, calls, count, uffd);
	if (rc == 0)
		rc = shut_in(vessel, uffd_number, notify);
	if (rc < 0) {
		close(uffd);
		return rc;
	}
	return pager_start(vessel->pager, vessel->pid, uffd, &vessel->error);
}

void vessel_init(struct vessel *vessel, const struct vessel_handlers *handlers)
{
	*vessel = (struct vessel){.handlers = handlers, .pidfd = -1, .output_fd = -1, .listener = -1, .cpu = -1};
	fd_table_init(&vessel->kernel_state, &vessel->identity);
	fd_table_init(&vessel->rerun, &vessel->identity);
}

int vessel_create(struct vessel *vessel, struct pager *pager)
{
	size_t entries = pager->regions.count + PLAN_FIXED + 4;
	uint64_t bytes = (entries * sizeof(struct restorer_call) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	struct restorer_call *calls = calloc(entries, sizeof(*calls));

	vessel->pager = pager;
	vessel->pid = 0;
	vessel->pidfd = vessel->output_fd = vessel->listener = -1;
	vessel->cpu = -1;
	if (!pager->tracker.offer.known)
		uffd_negotiate(&pager->tracker.offer);
	vessel->how = pager->tracker.offer.way < 0 ? UFFD_DEVICE : pager->tracker.offer.way;
	vessel->other_way = false;
	vessel->alternate_size = 0;
	vessel->timed_out = vessel->waiting = pager->over_limit = false;
	vessel->held_signals = 0;
	vessel->redo.finish = NULL;
	memset(vessel->sent, 0, sizeof(vessel->sent));
	pager->user_mode_only = vessel->how == UFFD_USER_MODE;
	vessel->stop_sent = vessel->stop_stale = vessel->kernel_changed = false;
	if (!calls)
		return fail(&vessel->error, ENOMEM, "restorer table");
	task_share_cpu(vessel);
	int rc = restorer_choose(vessel, PAGE_BYTES + bytes);
	if (rc == 0)
		rc = build(vessel, calls);
	task_leave_cpu(vessel);
	free(calls);
	if (rc < 0) {
		struct error error = vessel->error;
		vessel_destroy(vessel);
		vessel->error = error;
		if (vessel->other_way)
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

void vessel_deinit(struct vessel *vessel)
{
	account_end(vessel, false);
	fd_table_close(&vessel->kernel_state, NULL);
	fd_table_close(&vessel->rerun, NULL);
	notify_forget_timer(vessel);
	free(vessel->read.text);
	vessel->read = (struct names){0};
	free(vessel->out);
	vessel->out = NULL;
	vessel->out_len = vessel->out_room = 0;
}
