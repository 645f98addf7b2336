/* compat.h - system calls that the C library of Debian 11 has no SYS_ name for (glibc 2.31, headers of Linux
 * 5.10).  The numbers are those of include/uapi/asm-generic/unistd.h, the same on every processor. */
#ifndef GDB_UFFD_COMPAT_H
#define GDB_UFFD_COMPAT_H

#include <linux/close_range.h>
#include <sys/syscall.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4 /* include/uapi/linux/close_range.h, Linux 5.11 */
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#endif
