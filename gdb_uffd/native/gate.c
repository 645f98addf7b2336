#define _GNU_SOURCE
#include "gate.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notify.h"
#include "uffd.h"

#define CODE_AT 0x100
#define FILTER_MAX ((PAGE_BYTES - GATE_FILTER_AT - sizeof(struct sock_fprog)) / sizeof(struct sock_filter))

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

int gate_image(struct vessel *vessel, const struct gate_call *calls, size_t count, bool notify)
{
	static const char name[] = "vessel", device[] = "/dev/userfaultfd";
	static const struct __user_cap_header_struct head_of_nothing = {.version = _LINUX_CAPABILITY_VERSION_3};
	uint8_t page[PAGE_BYTES] = {0};
	Elf64_Ehdr *head = (void *)page;
	Elf64_Phdr *segment = (void *)(page + sizeof(*head));
	struct sock_fprog *filter = (void *)(page + GATE_FILTER_AT);

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
	memcpy(page + GATE_NAME_AT, name, sizeof(name));
	memcpy(page + GATE_DEVICE_AT, device, sizeof(device));
	memcpy(page + GATE_NOTHING_AT, &head_of_nothing, sizeof(head_of_nothing));
	memcpy(page + CODE_AT, gate_loop, sizeof(gate_loop));
	filter->filter = (void *)(page + GATE_FILTER_AT + sizeof(*filter));
	if (policy_filter(vessel, filter, FILTER_MAX, notify) < 0)
		return fail(&vessel->error, E2BIG, "seccomp filter");
	filter->filter = (void *)(vessel->gate + GATE_FILTER_AT + sizeof(*filter));

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

int gate_choose(struct vessel *vessel, uint64_t bytes)
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

static bool is_asynchronous(int signal)
{
	return signal != SIGTRAP && signal != SIGSEGV && signal != SIGBUS && signal != SIGILL &&
	       signal != SIGFPE && signal != SIGSYS;
}

static int stand_at_loop(struct vessel *vessel)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, vessel->pid, NULL, &regs) < 0)
		return fail(&vessel->error, errno, "PTRACE_GETREGS");
	regs.rip = vessel->gate + CODE_AT;
	regs.rbx = vessel->gate + PAGE_BYTES;
	regs.orig_rax = (unsigned long)-1;
	regs.eflags &= ~0x100ul;
	if (ptrace(PTRACE_SETREGS, vessel->pid, NULL, &regs) < 0)
		return fail(&vessel->error, errno, "PTRACE_SETREGS");
	return 0;
}

int gate_run(struct vessel *vessel, bool listened)
{
	int status, rc = stand_at_loop(vessel);
	uint64_t held = 0;

	if (rc < 0)
		return rc;
	do {
		if (ptrace(PTRACE_CONT, vessel->pid, NULL, NULL) < 0 ||
		    (listened && notify_let_one(vessel) < 0) || vessel_wait_stop(vessel, &status) < 0)
			return fail(&vessel->error, ESRCH, "the vessel died while it was being set up");
		held |= 1ull << (WSTOPSIG(status) - 1);
		listened = false;
		/* Our own calls pass the filter; what else arrives is the program's, for later. */
	} while (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) || is_asynchronous(WSTOPSIG(status)));
	for (int signal = 1; signal < 65; signal++)
		if ((held >> (signal - 1) & 1) && is_asynchronous(signal))
			kill(vessel->pid, signal);
	if (WSTOPSIG(status) != SIGTRAP)
		return fail(&vessel->error, EIO, "the gate stopped with signal %d", WSTOPSIG(status));
	return 0;
}

int gate_copy(struct vessel *vessel, void *local, size_t len, bool to_vessel)
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
		rc = gate_run(vessel, false);
	return rc < 0 ? rc : gate_copy(vessel, calls, bytes, false);
}

/* Lets it go to the next stop of one kind; `listened`: a notification comes before that. */
static int go_on(struct vessel *vessel, int request, bool listened, int *status)
{
	if (ptrace(request, vessel->pid, NULL, NULL) < 0 || (listened && notify_let_one(vessel) < 0) ||
	    vessel_wait_stop(vessel, status) < 0)
		return fail(&vessel->error, ESRCH, "the vessel died while it was being set up");
	return 0;
}

int gate_close(struct vessel *vessel)
{
	struct gate_call call = {.nr = SYS_munmap, .args = {vessel->gate, vessel->gate_bytes}};
	struct user_regs_struct regs;
	int status, rc = gate_copy(vessel, &call, sizeof(call), true);

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
	if (ptrace(PTRACE_GETREGS, vessel->pid, NULL, &regs) < 0 || regs.rax)
		return fail(&vessel->error, EIO, "the gate cannot be closed");
	/* From a signal stop the kernel restarts an interrupted call of the recorded thread by itself. */
	kill(vessel->pid, SIGSTOP);
	rc = go_on(vessel, PTRACE_CONT, false, &status);
	if (rc == 0 && WSTOPSIG(status) != SIGSTOP)
		return fail(&vessel->error, EIO, "the gate ended with signal %d", WSTOPSIG(status));
	vessel->gate = vessel->gate_bytes = 0;
	return rc;
}
