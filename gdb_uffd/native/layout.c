#define _GNU_SOURCE
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL /* Linux 6.13 */
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* MAP_HUGE_SHIFT and MAP_HUGE_MASK of mmap(2): six bits from bit 26 on. */
#define HUGE_SIZES (0x3fu << 26)

#define PLACED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static uint64_t ceil_page(uint64_t address)
{
	return (address + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

/* Before the first change of a transaction: how it was, for the way back. */
static int remember_layout(struct pager *pager)
{
	if (pager->layout_changed)
		return 0;
	int rc = regions_copy(&pager->at_tx, &pager->regions);
	pager->layout_changed = rc == 0;
	return rc;
}

/* Pages about to go: those that differ from the snapshot need their before-image now. */
static int save_range(struct pager *pager, uint64_t start, uint64_t end)
{
	int rc = remember_layout(pager);

	if (rc == 0)
		rc = engine_before_layout(pager, true);
	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (w->page < start || w->page >= end || !w->dirty || w->in_tx)
			continue;
		struct access nobody = {0};
		/* Not a write: only the image is taken, hence no writer. */
		if (!pager_note_write(pager, w->page, 0, &nobody))
			rc = -ENOMEM;
	}
	return rc;
}

int layout_finish_call(struct vessel *vessel, struct user_regs_struct *regs, int64_t *result)
{
	int status, rc = vessel_set_registers(vessel, regs);

	if (rc < 0)
		return rc;
	/* Signals wait for the way back to user mode, behind the exit stop. */
	do {
		if (ptrace(PTRACE_SYSCALL, vessel->pid, NULL, NULL) < 0)
			return -errno;
		rc = vessel_wait_stop(vessel, &status);
		if (rc < 0)
			return rc;
	} while (WSTOPSIG(status) != (SIGTRAP | 0x80));
	vessel->at_exit = true;
	rc = vessel_get_registers(vessel, regs);
	*result = (int64_t)regs->rax;
	return rc;
}

static int set_result(struct vessel *vessel, struct user_regs_struct *regs, int64_t result)
{
	regs->rax = (unsigned long)result;
	return vessel_set_registers(vessel, regs);
}

/* [start, end) is fresh memory of the program: tracked from its first touch. */
static int add_zero(struct pager *pager, uint64_t start, uint64_t end, int prot, uint32_t flags)
{
	struct region region = {
		.start = start, .end = end, .prot = prot, .kind = REGION_ZERO, .flags = REGION_BORN | flags};

	pages_forget_range(&pager->pages, start, end);
	if (uffd_register(pager->uffd, start, end - start, engine_protects(&pager->engine)) < 0)
		region.kind = REGION_NATIVE;
	return regions_set(&pager->regions, &region);
}

static int drop(struct pager *pager, uint64_t start, uint64_t end)
{
	pages_forget_range(&pager->pages, start, end);
	return regions_clear(&pager->regions, start, end);
}

/* The kernel's brk cannot be moved to the recorded heap (PR_SET_MM_MAP refuses it below
 * end_data), so brk is made of mmap and munmap. */
static int do_brk(struct vessel *vessel, struct user_regs_struct *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t wanted = regs->rdi, from = ceil_page(vessel->brk_now), to = ceil_page(wanted);
	int64_t result;
	int rc;

	if (!vessel->brk_start || wanted < vessel->brk_start || to < wanted)
		return policy_skip(vessel, regs, (int64_t)vessel->brk_now);
	if (to == from) {
		vessel->brk_now = wanted;
		return policy_skip(vessel, regs, (int64_t)wanted);
	}
	bool grow = to > from;
	rc = grow ? remember_layout(pager) : save_range(pager, to, from);
	if (rc < 0)
		return rc;
	struct user_regs_struct own = *regs;
	own.orig_rax = own.rax = grow ? SYS_mmap : SYS_munmap;
	own.rdi = grow ? from : to;
	own.rsi = grow ? to - from : from - to;
	if (grow) {
		own.rdx = PROT_READ | PROT_WRITE;
		own.r10 = PLACED | MAP_FIXED_NOREPLACE;
		own.r8 = (unsigned long)-1;
		own.r9 = 0;
	}
	rc = layout_finish_call(vessel, &own, &result);
	if (rc < 0)
		return rc;
	if (grow ? result == (int64_t)from : result == 0) {
		rc = grow ? add_zero(pager, from, to, PROT_READ | PROT_WRITE, 0) : drop(pager, to, from);
		vessel->brk_now = wanted;
	}
	/* The program's own argument registers come back; only the result is new. */
	own.rdi = regs->rdi;
	own.rsi = regs->rsi;
	own.rdx = regs->rdx;
	own.r10 = regs->r10;
	own.r8 = regs->r8;
	own.r9 = regs->r9;
	return rc < 0 ? rc : set_result(vessel, &own, (int64_t)vessel->brk_now);
}

/* A file's pages are fed from our own private mapping of it, so that they are tracked, and the
 * file cannot be changed through a shared mapping. */
static int stand_in(struct vessel *vessel, const struct user_regs_struct *at_exit,
		    const struct user_regs_struct *asked, uint64_t start, uint64_t len)
{
	struct pager *pager = vessel->pager;
	char path[64];
	struct stat info;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", vessel->pid, (int)asked->r8);
	int fd = -1;
	if (stat(path, &info) == 0 && S_ISREG(info.st_mode))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t offset = asked->r9;
	if (fd < 0 || (off_t)offset >= info.st_size) {
		/* A device, say: it stays as the kernel mapped it, untracked. */
		struct region native = {.start = start, .end = start + len, .prot = (int)asked->rdx,
					.kind = REGION_NATIVE, .flags = REGION_BORN};
		if (fd >= 0)
			close(fd);
		pages_forget_range(&pager->pages, start, start + len);
		return regions_set(&pager->regions, &native);
	}
	uint64_t have = (uint64_t)info.st_size - offset;
	uint64_t bytes = have < len ? have : len;
	void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
	int failed = errno;
	close(fd);
	if (map == MAP_FAILED)
		return -failed;
	rc = pager_keep_map(pager, map, bytes);
	if (rc < 0)
		return rc;
	uint64_t covered = ceil_page(bytes);
	struct gate_call calls[2] = {{.nr = SYS_mmap,
				      .args = {start, covered, asked->rdx & 7, PLACED | MAP_FIXED,
					       (uint64_t)-1, 0}}};
	rc = vessel_batch(vessel, calls, 1);
	if (rc == 0 && calls[0].result != (int64_t)start)
		rc = (int)calls[0].result;
	if (rc == 0)
		rc = vessel_set_registers(vessel, at_exit);
	if (rc == 0)
		rc = uffd_register(pager->uffd, start, covered, engine_protects(&pager->engine));
	struct region region = {.start = start, .end = start + covered, .prot = (int)asked->rdx & 7,
				.kind = REGION_BYTES, .bytes = map, .bytes_len = bytes,
				.flags = REGION_BORN | REGION_FILE};
	pages_forget_range(&pager->pages, start, start + len);
	return rc < 0 ? rc : regions_set(&pager->regions, &region);
}

static int do_mmap(struct vessel *vessel, struct user_regs_struct *regs)
{
	struct pager *pager = vessel->pager;
	struct user_regs_struct asked = *regs;
	uint64_t len = ceil_page(regs->rsi);
	int64_t result;
	int rc = remember_layout(pager);

	if (rc == 0 && (regs->r10 & MAP_FIXED))
		rc = save_range(pager, regs->rdi, regs->rdi + len);
	if (rc < 0)
		return rc;
	/* Populated pages would be there without our having fed them. */
	regs->r10 &= ~(unsigned long)(MAP_POPULATE | MAP_LOCKED | MAP_GROWSDOWN);
	uint32_t shared = 0;
	if (regs->r10 & MAP_ANONYMOUS) {
		/* Nobody shares it, as nobody is forked; and pages of shared memory cannot be protected
		 * before Linux 5.19, nor large ones be fed in small ones. */
		shared = (regs->r10 & MAP_TYPE) == MAP_PRIVATE ? 0 : REGION_SHARED;
		regs->r10 &= ~(unsigned long)(MAP_TYPE | MAP_HUGETLB | HUGE_SIZES);
		regs->r10 |= MAP_PRIVATE;
	}
	rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0 || (uint64_t)result >= (uint64_t)-4095)
		return rc;
	regs->r10 = asked.r10;
	rc = vessel_set_registers(vessel, regs);
	if (rc < 0)
		return rc;
	if (asked.r10 & MAP_ANONYMOUS)
		return add_zero(pager, (uint64_t)result, (uint64_t)result + len, (int)asked.rdx & 7, shared);
	return stand_in(vessel, regs, &asked, (uint64_t)result, len);
}

static int do_munmap(struct vessel *vessel, struct user_regs_struct *regs)
{
	uint64_t start = regs->rdi, end = start + ceil_page(regs->rsi);
	int64_t result;
	int rc = save_range(vessel->pager, start, end);

	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	return rc < 0 || result < 0 ? rc : drop(vessel->pager, start, end);
}

static int do_mprotect(struct vessel *vessel, struct user_regs_struct *regs)
{
	uint64_t start = regs->rdi, end = start + ceil_page(regs->rsi);
	int prot = (int)regs->rdx & 7;
	struct pager *pager = vessel->pager;
	const struct region *region = regions_find(&pager->regions, start);
	int64_t result;

	/* Access to reserved, unavailable pages would show zeros. */
	for (; region && region->start < end; region = regions_find(&pager->regions, region->end))
		if (region->kind == REGION_UNAVAILABLE)
			return policy_skip(vessel, regs, -EACCES);
	int rc = remember_layout(pager);
	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	return rc < 0 || result < 0 ? rc : regions_protect(&pager->regions, start, end, prot);
}

/* mremap(2) drops the registration of what it moves (no UFFD_FEATURE_EVENT_REMAP is asked for),
 * so every page is fed first, and the new range is registered again. */
static int do_mremap(struct vessel *vessel, struct user_regs_struct *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t from = regs->rdi, old_len = ceil_page(regs->rsi), len = ceil_page(regs->rdx);
	const struct region *region = regions_find(&pager->regions, from);
	struct access who = {.pc = regs->rip, .sp = regs->rsp};
	int64_t result;

	if (!region)
		return policy_skip(vessel, regs, -EFAULT);
	if (regs->r10 & ~(unsigned long)(MREMAP_MAYMOVE | MREMAP_FIXED))
		return policy_refuse(vessel, regs, EINVAL); /* MREMAP_DONTUNMAP */
	if (pager->engine.kind == ENGINE_WP_SYNC) /* the only one to tell who wrote */
		who.tid = (uint32_t)vessel->pid;
	int prot = region->prot;
	uint32_t shared = region->flags & REGION_SHARED;
	for (; region && region->start < from + old_len; region = regions_find(&pager->regions, region->end))
		if (region->kind == REGION_UNAVAILABLE || region->prot != prot)
			return policy_refuse(vessel, regs, EFAULT);
	int rc = save_range(pager, from, from + old_len);
	if (rc == 0 && (regs->r10 & MREMAP_FIXED))
		rc = save_range(pager, regs->r8, regs->r8 + len);
	if (rc == 0)
		rc = pager_populate_range(pager, from, from + (old_len < len ? old_len : len));
	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	if (rc < 0 || (uint64_t)result >= (uint64_t)-4095)
		return rc;
	uint64_t to = (uint64_t)result, kept = old_len < len ? old_len : len;
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;
	rc = drop(pager, from, from + old_len);
	if (rc == 0)
		rc = add_zero(pager, to, to + len, prot, shared);
	/* What moved is present at its new place, and differs from what was there before. */
	for (uint64_t done = 0; rc == 0 && done < kept; done += PAGE_BYTES) {
		struct page_slot *slot = pages_get(&pager->pages, to + done);
		who.address = to + done;
		struct written *w = slot ? pager_note_write(pager, to + done, writer, &who) : NULL;
		if (!w)
			return -ENOMEM;
		pages_find(&pager->pages, to + done)->present = true;
		w->armed = false;
		rc = engine_moved(pager, to + done);
	}
	return rc;
}

static int do_madvise(struct vessel *vessel, struct user_regs_struct *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t start = regs->rdi, end = start + ceil_page(regs->rsi);
	int64_t result;

	switch (regs->rdx) {
	case MADV_FREE: /* a hint: keeping the pages is allowed */
		return policy_skip(vessel, regs, 0);
	case MADV_DONTNEED:
	case MADV_REMOVE:
	case MADV_DONTNEED_LOCKED:
		break;
	case MADV_GUARD_INSTALL: /* pages would go unseen; glibc falls back to mprotect */
	case MADV_GUARD_REMOVE:
		return policy_skip(vessel, regs, -EINVAL);
	default:
		return 0;
	}
	const struct region *first = regions_find(&pager->regions, start);
	unsigned long asked = regs->rdx;
	if (first && (first->flags & REGION_SHARED)) {
		if (regs->rdx != MADV_REMOVE)
			return policy_skip(vessel, regs, 0);
		regs->rdx = MADV_DONTNEED; /* what frees it where it is private */
	}
	/* A recorded file's private pages would show the file again, which is not at hand here. */
	for (uint64_t at = start; at < end;) {
		const struct region *region = regions_find(&pager->regions, at);
		if (!region)
			break;
		if ((region->flags & (REGION_FILE | REGION_BORN)) == REGION_FILE)
			return policy_refuse(vessel, regs, EINVAL);
		at = region->end;
	}
	int rc = save_range(pager, start, end);
	if (rc == 0)
		rc = layout_finish_call(vessel, regs, &result);
	if (rc == 0 && regs->rdx != asked) {
		regs->rdx = asked;
		rc = vessel_set_registers(vessel, regs);
	}
	if (rc < 0 || result < 0)
		return rc;
	/* Anonymous memory reads as zeros from now on; the recorded bytes are gone. */
	pages_forget_range(&pager->pages, start, end);
	for (uint64_t at = start; rc == 0 && at < end;) {
		const struct region *region = regions_find(&pager->regions, at);
		if (!region)
			break;
		struct region zero = *region;
		zero.start = at;
		zero.end = region->end < end ? region->end : end;
		zero.bytes = NULL;
		zero.bytes_len = 0;
		at = zero.end;
		/* A file that the program mapped itself is fed again from that file. */
		if ((zero.kind != REGION_BYTES && zero.kind != REGION_ZERO) || (zero.flags & REGION_FILE))
			continue;
		zero.kind = REGION_ZERO;
		zero.flags |= REGION_BORN;
		rc = regions_set(&pager->regions, &zero);
	}
	return rc;
}

/* The gate is not the program's. */
static bool hits_gate(const struct vessel *vessel, const struct user_regs_struct *regs)
{
	uint64_t start = regs->rdi, end = start + ceil_page(regs->rsi);
	uint64_t gate_end = vessel->gate + vessel->gate_bytes;
	bool names_range = regs->orig_rax != SYS_brk &&
			   (regs->orig_rax != SYS_mmap || (regs->r10 & (MAP_FIXED | MAP_FIXED_NOREPLACE)));

	if (regs->orig_rax == SYS_mremap && (regs->r10 & MREMAP_FIXED) && regs->r8 < gate_end &&
	    regs->r8 + ceil_page(regs->rdx) > vessel->gate)
		return true;
	return names_range && start < gate_end && end > vessel->gate;
}

int layout_system_call(struct vessel *vessel, struct user_regs_struct *regs)
{
	if (hits_gate(vessel, regs))
		return policy_refuse(vessel, regs, EINVAL);
	int rc = engine_before_layout(vessel->pager, false);
	if (rc < 0)
		return rc;
	switch (regs->orig_rax) {
	case SYS_brk:
		return do_brk(vessel, regs);
	case SYS_mmap:
		return do_mmap(vessel, regs);
	case SYS_munmap:
		return do_munmap(vessel, regs);
	case SYS_mremap:
		return do_mremap(vessel, regs);
	case SYS_mprotect:
		return do_mprotect(vessel, regs);
	case SYS_madvise:
		return do_madvise(vessel, regs);
	default:
		return 0;
	}
}
