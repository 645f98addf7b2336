#define _GNU_SOURCE
#include "kernel/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernel/arch.h"

/* struct pm_scan_arg of <linux/fs.h>, younger than Debian 12's headers. */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)

#define SCAN_WP_MATCHING 1u
#define SCAN_CHECK_WPASYNC 2u

int pagemap_scan_fd(int fd, const struct page_scan *what, uint64_t start, uint64_t end,
		    struct page_range *ranges, size_t room, uint64_t *walked)
{
	const uint64_t task_end = arch_user_end(); /* an `end` beyond TASK_SIZE gives EFAULT */
	struct scan_arg arg = {
		.size = sizeof(arg),
		.flags = (what->protect ? SCAN_WP_MATCHING : 0) |
			 (what->protect && !what->lenient ? SCAN_CHECK_WPASYNC : 0),
		.start = start,
		.end = end < task_end ? end : task_end,
		.vec = (uint64_t)ranges,
		.vec_len = room,
		.category_inverted = what->inverted,
		.category_mask = what->mask,
		.category_anyof_mask = what->anyof,
		.return_mask = what->mask & ~what->inverted,
	};
	int got = ioctl(fd, SCAN_IOCTL, &arg);

	if (got < 0)
		return -errno;
	if (walked)
		*walked = end < task_end ? arg.walk_end : end;
	return got;
}

int pagemap_scan(pid_t pid, uint64_t start, uint64_t end, uint64_t categories, struct page_range *ranges,
		 size_t room)
{
	struct page_scan what = {.mask = categories};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int got = pagemap_scan_fd(fd, &what, start, end, ranges, room, NULL);
	close(fd);
	return got;
}
