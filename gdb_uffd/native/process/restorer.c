#define _GNU_SOURCE
#include "process/restorer.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/cleanup.h"
#include "process/filter.h"
#include "process/notify.h"
#include "process/task.h"

#define CODE_AT 0x100
#define LOWEST 0x20000ul /* above vm.mmap_min_addr */
#define KERNEL_OWN (arch_user_end() - (1ul << 30)) /* behind it execve(2) puts stack, vdso and vvar */
#define FILTER_MAX ((PAGE_BYTES - RESTORER_FILTER_AT - sizeof(struct sock_fprog)) / sizeof(struct sock_filter))

static_assert(sizeof(struct restorer_call) == 64, "the loop steps by 64 bytes");

int restorer_image(struct vessel *vessel, const struct restorer_call *calls, size_t count, bool notify)
{
	static const char name[] = "vessel", device[] = "/dev/userfaultfd";
	static const struct __user_cap_header_struct head_of_nothing = {.version = _LINUX_CAPABILITY_VERSION_3};
	uint8_t page[PAGE_BYTES] = {0};
	Elf64_Ehdr *head = (void *)page;
	Elf64_Phdr *segment = (void *)(page + sizeof(*head));
	struct sock_fprog *filter = (void *)(page + RESTORER_FILTER_AT);

	memcpy(head->e_ident, "\177ELF\2\1\1", 7);
	head->e_type = ET_EXEC;
	head->e_machine = ARCH_MACHINE;
	head->e_version = EV_CURRENT;
	head->e_entry = vessel->restorer + CODE_AT;
	head->e_phoff = sizeof(*head);
	head->e_ehsize = sizeof(*head);
	head->e_phentsize = sizeof(*segment);
	head->e_phnum = 1;
	segment->p_type = PT_LOAD;
	segment->p_flags = PF_R | PF_W | PF_X;
	segment->p_vaddr = segment->p_paddr = vessel->restorer;
	segment->p_filesz = segment->p_memsz = vessel->restorer_bytes;
	segment->p_align = PAGE_BYTES;
	memcpy(page + RESTORER_NAME_AT, name, sizeof(name));
	memcpy(page + RESTORER_DEVICE_AT, device, sizeof(device));
	memcpy(page + RESTORER_NOTHING_AT, &head_of_nothing, sizeof(head_of_nothing));
	memcpy(page + CODE_AT, arch_restorer.bytes, arch_restorer.len);
	filter->filter = (void *)(page + RESTORER_FILTER_AT + sizeof(*filter));
	if (filter_build(vessel, filter, FILTER_MAX, notify) < 0)
		return fail(&vessel->error, E2BIG, "seccomp filter");
	filter->filter = (void *)(vessel->restorer + RESTORER_FILTER_AT + sizeof(*filter));

	int fd = memfd_create("vessel", MFD_CLOEXEC);
	if (fd < 0)
		return fail(&vessel->error, errno, "memfd_create");
	size_t bytes = count * sizeof(*calls);
	if (write(fd, page, PAGE_BYTES) != (ssize_t)PAGE_BYTES ||
	    write(fd, calls, bytes) != (ssize_t)bytes ||
	    ftruncate(fd, (off_t)vessel->restorer_bytes) < 0) {
		int rc = fail(&vessel->error, errno, "vessel image");
		close(fd);
		return rc;
	}
	return fd;
}

static bool is_free(const struct regions *regions, uint64_t at, uint64_t len)
{
	const struct region *next = regions_next(regions, at);

	return !next || next->start >= at + len;
}

/* The middle of the largest hole below KERNEL_OWN; 0: none has room. */
static uint64_t largest_hole(const struct regions *regions, uint64_t len)
{
	uint64_t from = LOWEST, widest = 0, best = 0;

	for (size_t i = 0; i <= regions->count && from < KERNEL_OWN; i++) {
		uint64_t until = i < regions->count ? regions->at[i].start : KERNEL_OWN;
		if (until > KERNEL_OWN)
			until = KERNEL_OWN;
		if (until > from && until - from >= len && until - from > widest) {
			widest = until - from;
			best = from + (widest - len) / 2;
		}
		if (i < regions->count && regions->at[i].end > from)
			from = regions->at[i].end;
	}
	return (best + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

int restorer_choose(struct vessel *vessel, uint64_t bytes)
{
	const struct regions *regions = &vessel->pager->regions;
	const uint64_t len = bytes + VDSO_ROOM;
	uint64_t found = 0;

	/* Far from where mmap(2) places things; where all of that is taken (ThreadSanitizer maps 124 TiB), anywhere. */
	for (uint64_t at = 0x3a0000000000ul; !found && at < 0x540000000000ul; at += 0x1000000000ul)
		if (is_free(regions, at, len))
			found = at;
	if (!found)
		found = largest_hole(regions, len + PAGE_BYTES);
	if (!found)
		return fail(&vessel->error, ENOMEM, "the recorded address space is full: no hole of %lu KiB is left in it "
						    "for the code that sets the process up", (len + PAGE_BYTES) >> 10);
	vessel->restorer = found;
	vessel->restorer_bytes = bytes;
	return 0;
}

static bool is_asynchronous(int signal)
{
	return signal != SIGTRAP && signal != SIGSEGV && signal != SIGBUS && signal != SIGILL &&
	       signal != SIGFPE && signal != SIGSYS;
}

static int stand_at_loop(struct vessel *vessel)
{
	struct registers regs;

	int rc = task_get_registers(vessel, &regs);

	if (rc < 0)
		return rc;
	arch_enter(&regs, vessel->restorer + CODE_AT, vessel->restorer + PAGE_BYTES);
	return task_set_registers(vessel, &regs);
}

int restorer_run(struct vessel *vessel, bool listened)
{
	int status, rc = stand_at_loop(vessel);

	if (rc < 0)
		return rc;
	do {
		if (ptrace(PTRACE_CONT, vessel->pid, NULL, NULL) < 0 ||
		    (listened && notify_let_one(vessel) < 0) || task_wait_stop(vessel, &status) < 0)
			return fail(&vessel->error, ESRCH, "the vessel died while it was being set up");
		if (is_asynchronous(WSTOPSIG(status)))
			signals_hold(vessel, WSTOPSIG(status));
		listened = false;
		/* Our own calls pass the filter; what else arrives is the program's, for later. */
	} while (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) || is_asynchronous(WSTOPSIG(status)));
	signals_release(vessel);
	if (WSTOPSIG(status) != SIGTRAP)
		return fail(&vessel->error, EIO, "the restorer stopped with signal %d", WSTOPSIG(status));
	return 0;
}

int restorer_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel)
{
	struct iovec here = {local, len}, there = {(void *)(vessel->restorer + PAGE_BYTES), len};
	ssize_t done = to_vessel ? process_vm_writev(vessel->pid, &here, 1, &there, 1, 0) :
				   process_vm_readv(vessel->pid, &here, 1, &there, 1, 0);

	return done == (ssize_t)len ? 0 : fail(&vessel->error, errno, "restorer table");
}

int restorer_batch(struct vessel *vessel, struct restorer_call *calls, size_t count)
{
	size_t bytes = count * sizeof(*calls);

	if (bytes + sizeof(*calls) > vessel->restorer_bytes - PAGE_BYTES)
		return fail(&vessel->error, E2BIG, "restorer table");
	calls[count].nr = -1;
	int rc = restorer_copy(vessel, calls, bytes + 8, true);
	if (rc == 0)
		rc = restorer_run(vessel, false);
	return rc < 0 ? rc : restorer_copy(vessel, calls, bytes, false);
}

/* The vdso's mapping, from /proc/PID/maps; 0 where there is none. */
static uint64_t find_vdso(const struct vessel *vessel, uint64_t *end)
{
	char path[64], line[512];
	uint64_t start, found = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", vessel->pid);
	FCLOSED FILE *file = fopen(path, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, end) == 2)
			found = start;
	return found;
}

int restorer_keep_vdso(struct vessel *vessel)
{
	uint64_t end = 0, to = vessel->restorer + vessel->restorer_bytes, start = VDSO_ROOM ? find_vdso(vessel, &end) : 0;

	vessel->vdso = vessel->vdso_end = 0;
	if (!start || end - start > VDSO_ROOM)
		return 0; /* a handler then ends with SIGSEGV */
	struct restorer_call calls[2] = {
		{.nr = SYS_mremap, .args = {start, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, to}}};
	int rc = restorer_batch(vessel, calls, 1);
	if (rc < 0 || calls[0].result != (int64_t)to)
		return rc < 0 ? rc : fail(&vessel->error, (int)-calls[0].result, "moving the vdso");
	vessel->vdso = to;
	vessel->vdso_end = to + (end - start);
	return 0;
}

/* Lets it go to the next stop of one kind; `listened`: a notification comes before that. */
static int go_on(struct vessel *vessel, int request, bool listened, int *status)
{
	if (ptrace(request, vessel->pid, NULL, NULL) < 0 || (listened && notify_let_one(vessel) < 0) ||
	    task_wait_stop(vessel, status) < 0)
		return fail(&vessel->error, ESRCH, "the vessel died while it was being set up");
	return 0;
}

int restorer_close(struct vessel *vessel)
{
	struct restorer_call call = {.nr = SYS_munmap, .args = {vessel->restorer, vessel->restorer_bytes}};
	struct registers regs;
	int status, rc = restorer_copy(vessel, &call, sizeof(call), true);

	if (rc == 0)
		rc = stand_at_loop(vessel);
	if (rc == 0)
		rc = go_on(vessel, PTRACE_SYSCALL, false, &status); /* into the call */
	bool traced = vessel->listener < 0 || vessel->policy.rules[SYS_munmap].traced;
	if (rc == 0)
		rc = go_on(vessel, PTRACE_SYSCALL, !traced, &status);
	if (rc == 0 && traced) /* that was the filter's event */
		rc = go_on(vessel, PTRACE_SYSCALL, false, &status);
	if (rc < 0)
		return rc;
	if (task_get_registers(vessel, &regs) < 0 || RESULT(&regs))
		return fail(&vessel->error, EIO, "the restorer cannot be closed");
	/* From a signal stop the kernel restarts an interrupted call of the recorded thread by itself. */
	kill(vessel->pid, SIGSTOP);
	rc = go_on(vessel, PTRACE_CONT, false, &status);
	if (rc == 0 && WSTOPSIG(status) != SIGSTOP)
		return fail(&vessel->error, EIO, "the restorer ended with signal %d", WSTOPSIG(status));
	vessel->restorer = vessel->restorer_bytes = 0;
	return rc;
}
