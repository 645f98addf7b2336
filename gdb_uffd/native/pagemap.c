#define _GNU_SOURCE
#include "pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TASK_END 0x7ffffffff000ul /* an `end` beyond TASK_SIZE gives EFAULT */

/* struct pm_scan_arg of <linux/fs.h>, younger than Debian 12's headers. */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)

int pagemap_scan(pid_t pid, uint64_t start, uint64_t end, uint64_t categories,
		 struct page_range *ranges, size_t room)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end < TASK_END ? end : TASK_END,
		.vec = (uint64_t)ranges,
		.vec_len = room,
		.category_mask = categories,
		.return_mask = categories,
	};
	int got = ioctl(fd, SCAN_IOCTL, &arg);
	int failed = errno;
	close(fd);
	return got < 0 ? -failed : got;
}
