#define _GNU_SOURCE
#include "vessel.h"

#include <assert.h>
#include <elf.h>
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

#include "uffd.h"

#define USER_END 0x7ffffffff000ul /* TASK_SIZE_MAX of x86-64 with four-level paging */
#define CODE_AT 0x100
#define NAME_AT 0x80
#define FILTER_AT 0x400 /* struct sock_fprog, then its instructions: the rest of the first page */
#define FILTER_MAX ((PAGE_BYTES - FILTER_AT - sizeof(struct sock_fprog)) / sizeof(struct sock_filter))

/* rbx = table: { nr, a0..a5, result }; runs entries until nr is -1, then int3.
 *   loop: mov (%rbx),%rax; cmp $-1,%rax; je end; mov 8(%rbx),%rdi; mov 16(%rbx),%rsi;
 *         mov 24(%rbx),%rdx; mov 32(%rbx),%r10; mov 40(%rbx),%r8; mov 48(%rbx),%r9; syscall;
 *         mov %rax,56(%rbx); add $64,%rbx; jmp loop;  end: int3 */
static const uint8_t gate_loop[] = {
	0x48, 0x8b, 0x03, 0x48, 0x83, 0xf8, 0xff, 0x74, 0x24, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73,
	0x10, 0x48, 0x8b, 0x53, 0x18, 0x4c, 0x8b, 0x53, 0x20, 0x4c, 0x8b, 0x43, 0x28, 0x4c, 0x8b, 0x4b,
	0x30, 0x0f, 0x05, 0x48, 0x89, 0x43, 0x38, 0x48, 0x83, 0xc3, 0x40, 0xeb, 0xd3, 0xcc,
};

static_assert(sizeof(struct gate_call) == 64, "the loop steps by 64 bytes");

/* A static ELF of one segment at the gate: header, loop, filter; the table follows. */
static int make_image(struct vessel *vessel, const struct gate_call *calls, size_t count)
{
	static const char name[] = "vessel";
	uint8_t page[PAGE_BYTES] = {0};
	Elf64_Ehdr *head = (void *)page;
	Elf64_Phdr *segment = (void *)(page + sizeof(*head));
	struct sock_fprog *filter = (void *)(page + FILTER_AT);

	memcpy(head->e_ident, "\177ELF\2\1\1", 7);
	head->e_type = ET_EXEC;
	head->e_machine = EM_X86_64;
	head->e_version = EV_CURRENT;
	head->e_entry = vessel->gate + CODE_AT;
	head->e_phoff = sizeof(*head);
	head->e_ehsize = sizeof(*head);
	head->e_phentsize = sizeof(*segment);
	head->e_phnum = 1;
	segment->p_type = PT_LOAD;
	segment->p_flags = PF_R | PF_W | PF_X;
	segment->p_vaddr = segment->p_paddr = vessel->gate;
	segment->p_filesz = segment->p_memsz = vessel->gate_bytes;
	segment->p_align = PAGE_BYTES;
	memcpy(page + NAME_AT, name, sizeof(name));
	memcpy(page + CODE_AT, gate_loop, sizeof(gate_loop));
	filter->filter = (void *)(page + FILTER_AT + sizeof(*filter));
	policy_filter(filter, FILTER_MAX);
	filter->filter = (void *)(vessel->gate + FILTER_AT + sizeof(*filter));

	int fd = memfd_create("vessel", MFD_CLOEXEC);
	if (fd < 0)
		return fail(&vessel->error, errno, "memfd_create");
	size_t bytes = count * sizeof(*calls);
	if (write(fd, page, PAGE_BYTES) != (ssize_t)PAGE_BYTES ||
	    write(fd, calls, bytes) != (ssize_t)bytes ||
	    ftruncate(fd, (off_t)vessel->gate_bytes) < 0) {
		int rc = fail(&vessel->error, errno, "vessel image");
		close(fd);
		return rc;
	}
	return fd;
}

/* A stretch of `bytes` that no recorded mapping touches, far from where mmap(2) places things. */
static int choose_gate(struct vessel *vessel, uint64_t bytes)
{
	const struct regions *regions = &vessel->pager->regions;

	for (uint64_t at = 0x3a0000000000ul; at < 0x540000000000ul; at += 0x1000000000ul) {
		const struct region *found = NULL;
		for (uint64_t page = at; page < at + bytes && !found; page += PAGE_BYTES)
			found = regions_find(regions, page);
		if (!found) {
			vessel->gate = at;
			vessel->gate_bytes = bytes;
			return 0;
		}
	}
	return fail(&vessel->error, ENOMEM, "no room for the gate page in the recorded address space");
}

/* Runs in the parent's memory (vfork): system calls only. */
static void __attribute__((noreturn)) child(int image, int null_fd, int out_fd)
{
	static char *const argv[] = {(char *)"vessel", NULL}, *const envp[] = {NULL};
	struct rlimit none = {0, 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	setrlimit(RLIMIT_CORE, &none);
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
			return WIFSTOPPED(*status) ? 0 : -ESRCH;
		}
		if (got < 0 && errno != EINTR)
			return -errno;
	}
}

static int spawn(struct vessel *vessel, int image)
{
	int pipes[2], status;
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

/* Runs the table that is in the gate already. */
static int run_gate(struct vessel *vessel)
{
	struct user_regs_struct regs;
	int status, signal = 0;

	if (ptrace(PTRACE_GETREGS, vessel->pid, NULL, &regs) < 0)
		return fail(&vessel->error, errno, "PTRACE_GETREGS");
	regs.rip = vessel->gate + CODE_AT;
	regs.rbx = vessel->gate + PAGE_BYTES;
	regs.orig_rax = (unsigned long)-1;
	regs.eflags &= ~0x100ul;
	if (ptrace(PTRACE_SETREGS, vessel->pid, NULL, &regs) < 0)
		return fail(&vessel->error, errno, "PTRACE_SETREGS");
	do {
		if (ptrace(PTRACE_CONT, vessel->pid, NULL, signal) < 0 ||
		    vessel_wait_stop(vessel, &status) < 0)
			return fail(&vessel->error, ESRCH, "the vessel died while it was being set up");
		/* Our own calls pass the filter; a stray SIGSTOP of ours is dropped. */
	} while (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) || WSTOPSIG(status) == SIGSTOP);
	if (WSTOPSIG(status) != SIGTRAP)
		return fail(&vessel->error, EIO, "the gate stopped with signal %d", WSTOPSIG(status));
	return 0;
}

static int gate_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel)
{
	struct iovec here = {local, len}, there = {(void *)(vessel->gate + PAGE_BYTES), len};
	ssize_t done = to_vessel ? process_vm_writev(vessel->pid, &here, 1, &there, 1, 0) :
				   process_vm_readv(vessel->pid, &here, 1, &there, 1, 0);

	return done == (ssize_t)len ? 0 : fail(&vessel->error, errno, "gate table");
}

int vessel_batch(struct vessel *vessel, struct gate_call *calls, size_t count)
{
	size_t bytes = count * sizeof(*calls);

	if (bytes + sizeof(*calls) > vessel->gate_bytes - PAGE_BYTES)
		return fail(&vessel->error, E2BIG, "gate table");
	calls[count].nr = -1;
	int rc = gate_copy(vessel, calls, bytes + 8, true);
	if (rc == 0)
		rc = run_gate(vessel);
	return rc < 0 ? rc : gate_copy(vessel, calls, bytes, false);
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
	calls[count++] = call6(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0);
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
	struct iovec there = {(void *)(vessel->gate + NAME_AT + 16), sizeof(device)};

	if (process_vm_writev(vessel->pid, &here, 1, &there, 1, 0) != (ssize_t)sizeof(device))
		return -errno;
	calls[0] = call6(SYS_openat, (uint64_t)AT_FDCWD, vessel->gate + NAME_AT + 16, O_RDWR | O_CLOEXEC, 0, 0);
	int rc = vessel_batch(vessel, calls, 1);
	if (rc < 0 || calls[0].result < 0)
		return rc < 0 ? rc : (int)calls[0].result;
	int64_t dev = calls[0].result;
	calls[0] = call6(SYS_ioctl, (uint64_t)dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK, 0, 0);
	calls[1] = call6(SYS_close, (uint64_t)dev, 0, 0, 0, 0);
	rc = vessel_batch(vessel, calls, 2);
	return rc < 0 ? rc : (int)calls[0].result;
}

static int take_uffd(struct vessel *vessel, int64_t number)
{
	uint64_t features = 0, present = 0;
	int how;

	if (number < 0) {
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
		wanted |= present & UFFD_FEATURE_POISON;
	int rc = uffd_api(uffd, wanted, &features);
	if (rc < 0) {
		close(uffd);
		return fail(&vessel->error, -rc,
			    "userfaultfd write-protection (Linux 5.7 or newer is needed)");
	}
	/* The program must find its own descriptor numbers, and no way to the pager. */
	struct gate_call calls[5] = {
		call6(SYS_close, (uint64_t)number, 0, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NAME, vessel->gate + NAME_AT, 0, 0, 0),
		call6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		call6(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, vessel->gate + FILTER_AT, 0, 0),
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
	int image = make_image(vessel, calls, count + 1);
	if (image < 0)
		return image;
	int rc = spawn(vessel, image);
	close(image);
	if (rc == 0)
		rc = run_gate(vessel);
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
	vessel->how = 0;
	vessel->stop_sent = false;
	if (!calls)
		return fail(&vessel->error, ENOMEM, "gate table");
	vessel_share_cpu(vessel);
	int rc = choose_gate(vessel, PAGE_BYTES + bytes);
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
