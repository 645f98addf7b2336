#define _GNU_SOURCE
#include "uffd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The uapi layouts that the ioctl numbers encode. */
static_assert(sizeof(struct uffd_msg) == 32, "struct uffd_msg");
static_assert(sizeof(struct uffdio_copy) == 40, "struct uffdio_copy");
static_assert(sizeof(struct uffdio_writeprotect) == 24, "struct uffdio_writeprotect");
static_assert(sizeof(struct uffdio_register) == 32, "struct uffdio_register");

int uffd_api(int uffd, uint64_t wanted, uint64_t *features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = wanted};

	if (ioctl(uffd, UFFDIO_API, &api) < 0)
		return -errno;
	*features = api.features;
	return 0;
}

static int probe_open(int *how)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	*how = 0;
	if (fd >= 0)
		return fd;
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		close(dev);
		*how = 1;
		if (fd >= 0)
			return fd;
	}
	*how = 2;
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	return fd >= 0 ? fd : -errno;
}

int uffd_probe(uint64_t *features, int *how)
{
	int fd = probe_open(how);

	if (fd < 0)
		return fd;
	int rc = uffd_api(fd, 0, features);
	close(fd);
	return rc;
}

int uffd_register(int uffd, uint64_t start, uint64_t len)
{
	struct uffdio_register reg = {
		.range = {.start = start, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int uffd_register_written(int uffd, uint64_t start, uint64_t len)
{
	struct uffdio_register reg = {
		.range = {.start = start, .len = len},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int uffd_wake_page(int uffd, uint64_t page)
{
	struct uffdio_range range = {.start = page, .len = PAGE_BYTES};

	return ioctl(uffd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

int uffd_copy_page(int uffd, uint64_t page, const void *from, bool protect)
{
	for (;;) {
		struct uffdio_copy copy = {
			.dst = page,
			.src = (uint64_t)from,
			.len = PAGE_BYTES,
			.mode = protect ? UFFDIO_COPY_MODE_WP : 0,
		};

		if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
			return 0;
		switch (errno) {
		case EAGAIN: /* the layout is changing: again */
			sched_yield();
			continue;
		case EEXIST: /* another was first: its page stands, the waiters go on */
			uffd_wake_page(uffd, page);
			return 0;
		default:
			return -errno;
		}
	}
}

int uffd_protect(int uffd, uint64_t start, uint64_t len, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = start, .len = len},
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	for (;;) {
		if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) == 0)
			return 0;
		if (errno != EAGAIN)
			return -errno;
		sched_yield();
	}
}

int uffd_poison_page(int uffd, uint64_t page)
{
	struct uffdio_poison poison = {.range = {.start = page, .len = PAGE_BYTES}};

	return ioctl(uffd, UFFDIO_POISON, &poison) < 0 ? -errno : 0;
}
