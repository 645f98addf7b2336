#define _GNU_SOURCE
#include "kernel/uffd.h"

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

int uffd_open(int way)
{
	int fd;

	if (way != UFFD_DEVICE) {
		fd = (int)syscall(SYS_userfaultfd,
				  O_CLOEXEC | (way == UFFD_USER_MODE ? UFFD_USER_MODE_ONLY : 0));
		return fd < 0 ? -errno : fd;
	}
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd;
	close(device);
	return rc;
}

int uffd_negotiate(struct uffd_offer *offer)
{
	*offer = (struct uffd_offer){.way = -1};
	for (int way = 0; way < UFFD_WAYS; way++) {
		struct uffdio_api api = {.api = UFFD_API};
		int fd = uffd_open(way);
		offer->rc[way] = fd < 0 ? fd : 0;
		if (fd < 0)
			continue;
		if (ioctl(fd, UFFDIO_API, &api) < 0)
			offer->rc[way] = -errno;
		close(fd);
		if (offer->rc[way] < 0 || offer->way >= 0)
			continue;
		offer->way = way;
		offer->features = api.features;
		offer->ioctls = api.ioctls;
	}
	offer->known = true;
	return offer->way < 0 ? offer->rc[UFFD_WAYS - 1] : 0;
}

int uffd_register(int uffd, uint64_t start, uint64_t len, bool protect)
{
	struct uffdio_register reg = {
		.range = {.start = start, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING | (protect ? UFFDIO_REGISTER_MODE_WP : 0),
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

int uffd_wake(int uffd, uint64_t start, uint64_t len)
{
	struct uffdio_range range = {.start = start, .len = len};

	return ioctl(uffd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

int uffd_wake_page(int uffd, uint64_t page)
{
	return uffd_wake(uffd, page, PAGE_BYTES);
}

int uffd_zero_unseen(int uffd, uint64_t start, uint64_t len, uint64_t *done)
{
	*done = 0;
	while (*done < len) {
		struct uffdio_zeropage zero = {
			.range = {.start = start + *done, .len = len - *done},
			.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
		};
		int rc = ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;

		if (zero.zeropage > 0)
			*done += (uint64_t)zero.zeropage;
		if (rc == -EAGAIN)
			sched_yield();
		else if (rc < 0)
			return *done ? 0 : rc;
	}
	return 0;
}

static int copy_page(int uffd, uint64_t page, const void *from, uint64_t mode)
{
	for (;;) {
		struct uffdio_copy copy = {
			.dst = page,
			.src = (uint64_t)from,
			.len = PAGE_BYTES,
			.mode = mode,
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

int uffd_copy_page(int uffd, uint64_t page, const void *from, bool protect)
{
	return copy_page(uffd, page, from, protect ? UFFDIO_COPY_MODE_WP : 0);
}

int uffd_copy_page_unseen(int uffd, uint64_t page, const void *from)
{
	return copy_page(uffd, page, from, UFFDIO_COPY_MODE_DONTWAKE);
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
