/* mapping_mmap.c - mmap of the running program: its memory stays private and tracked, whatever it asks for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/cleanup.h"
#include "process/account.h"
#include "process/call.h"
#include "process/task.h"
#include "process/vessel.h"
#include "syscalls/mapping.h"
#include "syscalls/refuse.h"

#ifndef MAP_HUGE_MASK
#define MAP_HUGE_MASK 0x3f
#define MAP_HUGE_SHIFT 26
#endif

/* The file behind a descriptor of the program's, opened anew for reading: a regular one.  -ENODEV: it
 * is something else.  Otherwise what mmap(2) is to say. */
static int open_mapped(struct vessel *vessel, const struct registers *regs)
{
	char path[64];
	struct stat info;
	struct opened *file = fd_table_find(&vessel->kernel_state, (int)ARGUMENT(regs, 4));
	bool shared = (ARGUMENT(regs, 3) & MAP_TYPE) != MAP_PRIVATE;

	if (vessel->policy.level == LEVEL_ALL)
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", vessel->pid, (int)ARGUMENT(regs, 4));
	else if (!file || file->kind == OPENED_PATH)
		return -EBADF;
	else if (file->kind != OPENED_FILE || (shared && (ARGUMENT(regs, 2) & PROT_WRITE)))
		return -EACCES;
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	if (stat(path, &info) < 0)
		return -EBADF;
	if (!S_ISREG(info.st_mode))
		return -ENODEV;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -EACCES : fd;
}

/* A file's pages are fed from our own private mapping of it, so that they are tracked, and the
 * file cannot be changed through a shared mapping.  `map` out: that mapping, of `*bytes` bytes. */
static int map_ourselves(struct pager *pager, int fd, uint64_t offset, uint64_t len, void **map, uint64_t *bytes)
{
	struct stat info;

	*map = NULL;
	*bytes = 0;
	if (offset % PAGE_BYTES || fstat(fd, &info) < 0)
		return -EINVAL;
	if (offset >= (uint64_t)info.st_size)
		return 0;
	*bytes = (uint64_t)info.st_size - offset < len ? (uint64_t)info.st_size - offset : len;
	*map = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
	return *map == MAP_FAILED ? -errno : maps_keep(&pager->maps, *map, *bytes);
}

/* [start, start + len) was mapped as anonymous memory and stands for the file. */
static int stand_in(struct pager *pager, uint64_t start, uint64_t len, int prot, const void *map, uint64_t bytes)
{
	uint64_t covered = mapping_ceil(bytes);
	struct region region = {.start = start, .end = start + covered, .prot = prot, .kind = REGION_BYTES,
				.bytes = map, .bytes_len = bytes, .flags = REGION_BORN | REGION_FILE};

	pages_forget_range(&pager->pages, start, start + len, true);
	int rc = uffd_register(pager->uffd, start, len, tracker_protects(&pager->tracker));
	if (rc == 0 && covered)
		rc = regions_set(&pager->regions, &region);
	if (rc < 0 || covered == len)
		return rc;
	/* Behind the file's end a touch gives SIGBUS (mmap(2)). */
	struct region behind = {.start = start + covered, .end = start + len, .prot = prot,
				.kind = REGION_UNAVAILABLE,
				.flags = REGION_BORN | REGION_FILE | REGION_BEYOND};
	return regions_set(&pager->regions, &behind);
}

/* What the program mapped natively (a device, with `syscalls all`): not tracked. */
static int leave_native(struct pager *pager, uint64_t start, uint64_t len, int prot)
{
	struct region native = {.start = start, .end = start + len, .prot = prot, .kind = REGION_NATIVE,
				.flags = REGION_BORN};

	pages_forget_range(&pager->pages, start, start + len, true);
	return regions_set(&pager->regions, &native);
}

/* Makes the call with the flags and descriptor given; the program's own registers come back. */
static int make_mapping(struct vessel *vessel, struct registers *regs, bool anonymous, int64_t *result)
{
	const struct registers asked = *regs;

	/* Populated pages would be there without our having fed them; huge ones could not be fed. */
	ARGUMENT(regs, 3) &= ~(unsigned long)(MAP_POPULATE | MAP_LOCKED | MAP_GROWSDOWN | MAP_HUGETLB |
				      (unsigned long)MAP_HUGE_MASK << MAP_HUGE_SHIFT);
	if (anonymous) {
		/* Nobody shares it: fork is refused.  And pages of shared memory cannot be protected before
		 * Linux 5.19. */
		ARGUMENT(regs, 3) = (ARGUMENT(regs, 3) & ~(unsigned long)MAP_TYPE) | MAP_PRIVATE |
				    MAP_ANONYMOUS | MAP_NORESERVE;
		ARGUMENT(regs, 4) = (unsigned long)-1;
		ARGUMENT(regs, 5) = 0;
	}
	int rc = call_finish(vessel, regs, result);
	if (rc < 0)
		return rc;
	arch_restore_arguments(regs, &asked);
	return task_set_registers(vessel, regs);
}

int mapping_mmap(struct vessel *vessel, struct registers *regs)
{
	struct pager *pager = vessel->pager;
	uint64_t len = mapping_ceil(ARGUMENT(regs, 1)), bytes = 0;
	int prot = (int)ARGUMENT(regs, 2) & 7, rc;
	CLOSED int fd = -1;
	bool native = false, file = !(ARGUMENT(regs, 3) & MAP_ANONYMOUS);
	void *map = NULL;
	int64_t result = -ENOMEM;

	if (file) {
		fd = open_mapped(vessel, regs);
		native = fd == -ENODEV && vessel->policy.level == LEVEL_ALL;
		if (fd == -EBADF)
			return refuse_call(vessel, regs, EBADF);
		if (fd < 0 && !native)
			return call_skip(vessel, regs, fd);
	}
	rc = mapping_remember(pager);
	if (rc == 0 && (ARGUMENT(regs, 3) & MAP_FIXED))
		rc = mapping_save(vessel, regs, ARGUMENT(regs, 0), ARGUMENT(regs, 0) + len);
	if (rc == 0 && fd >= 0) {
		rc = map_ourselves(pager, fd, ARGUMENT(regs, 5), len, &map, &bytes);
		if (rc < 0)
			return call_skip(vessel, regs, rc);
		account_note_read(vessel, fd);
	}
	if (rc == 0)
		rc = make_mapping(vessel, regs, !native, &result);
	if (rc < 0 || (uint64_t)result >= (uint64_t)-4095)
		return rc;
	if (native)
		return leave_native(pager, (uint64_t)result, len, prot);
	if (file)
		return stand_in(pager, (uint64_t)result, len, prot, map, bytes);
	uint32_t shared = (ARGUMENT(regs, 3) & MAP_TYPE) == MAP_PRIVATE ? 0 : REGION_SHARED;
	return mapping_add(pager, (uint64_t)result, (uint64_t)result + len, prot, shared);
}
