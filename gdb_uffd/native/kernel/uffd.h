/* uffd.h - every userfaultfd ioctl, wrapped once.  userfaultfd(2), ioctl_userfaultfd(2),
 * Documentation/admin-guide/mm/userfaultfd.rst. */
#ifndef GDB_UFFD_UFFD_H
#define GDB_UFFD_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "kernel/python.h"

#define PAGE_BYTES 4096UL

/* Constants younger than the headers of Debian 12 (include/uapi/linux/userfaultfd.h). */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_EXACT_ADDRESS
#define UFFD_FEATURE_EXACT_ADDRESS (1 << 11)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Handshake on a fresh descriptor; `features` in: wanted, out: what the kernel has at all. */
int uffd_api(int uffd, uint64_t wanted, uint64_t *features);

/* The ways to a descriptor, in the order in which they are tried. */
PYTHON enum uffd_way {
	UFFD_DEVICE = 0,    /* /dev/userfaultfd (Linux 6.1): whoever may open it */
	UFFD_SYSCALL = 1,   /* userfaultfd(2): root, or vm.unprivileged_userfaultfd=1 */
	UFFD_USER_MODE = 2, /* ... with UFFD_USER_MODE_ONLY (5.11): the kernel's own accesses fail */
};
#define UFFD_WAYS 3

/* What this kernel offers this process. */
PYTHON struct uffd_offer {
	bool known;
	int way;            /* the first that works, or -1 */
	int rc[UFFD_WAYS];  /* 0 or -errno of each */
	uint64_t features;  /* UFFD_FEATURE_*: all that the kernel has */
	uint64_t ioctls;    /* bits of UFFDIO_API's answer */
};

/* A descriptor by one way; O_CLOEXEC.  -errno. */
int uffd_open(int way);
/* Tries each way and asks for the features with a throw-away descriptor (UFFDIO_API works once
 * per descriptor).  0, or the -errno of the last way when none works. */
PYTHON int uffd_negotiate(struct uffd_offer *offer);

/* Missing events for [start, start + len); with `protect` write-protect events too. */
int uffd_register(int uffd, uint64_t start, uint64_t len, bool protect);

/* Nothing but a note of each page written, for PAGEMAP_SCAN (UFFD_FEATURE_WP_ASYNC). */
int uffd_register_written(int uffd, uint64_t start, uint64_t len);

/* One page from `from`, write-protected if `protect`.  0 also when another was first (EEXIST:
 * the waiters are woken); -EFAULT when the source cannot be read (its file was cut short). */
int uffd_copy_page(int uffd, uint64_t page, const void *from, bool protect);
/* The same, unprotected, and who waits for it sleeps on until uffd_wake_page. */
int uffd_copy_page_unseen(int uffd, uint64_t page, const void *from);

/* Zeros in [start, start + len), which take no memory until they are written; who waits for one sleeps on
 * until it is woken.  `done` out: how many bytes from `start` on. */
int uffd_zero_unseen(int uffd, uint64_t start, uint64_t len, uint64_t *done);
int uffd_wake(int uffd, uint64_t start, uint64_t len);

/* Arms or lifts write protection; lifting wakes the waiters. */
int uffd_protect(int uffd, uint64_t start, uint64_t len, bool protect);

/* Makes a missing page raise SIGBUS when touched.  -EINVAL where the kernel lacks it (< 6.6). */
int uffd_poison_page(int uffd, uint64_t page);

int uffd_wake_page(int uffd, uint64_t page);

#endif
