/* hostile.c: code in a core that tries to get out.  Each function gives 0 when nothing worked, else what
 * did; `server` is the tracer's PID, `where` the address of 8 bytes of its memory that hold `secret`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* Younger than Debian 11's headers. */
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

long secret = 0x1122334455667788;
char work[65536] __attribute__((aligned(4096))) = "recorded";

long escape_ptrace(long server)
{
	long worked = 0;

	worked |= ptrace(PTRACE_ATTACH, server, 0, 0) == 0;
	worked |= (ptrace(PTRACE_SEIZE, server, 0, 0) == 0) << 1;
	worked |= (ptrace(PTRACE_TRACEME, 0, 0, 0) == 0) << 2;
	worked |= (ptrace(PTRACE_SEIZE, getppid(), 0, 0) == 0) << 3;
	return worked;
}

static int write_to(const char *path, long where)
{
	static const int flags[] = {O_RDWR, O_WRONLY, O_RDONLY};
	long zero = 0;
	int worked = 0;

	for (int i = 0; i < 3; i++) {
		int fd = open(path, flags[i]);
		if (fd >= 0)
			worked = 1;
		worked |= pwrite(fd, &zero, sizeof(zero), where) > 0;
	}
	return worked;
}

long escape_mem(long server, long where)
{
	char path[128];
	long worked = 0;

	snprintf(path, sizeof(path), "/proc/%ld/mem", server);
	worked |= write_to(path, where);
	snprintf(path, sizeof(path), "/proc/%ld/task/%ld/mem", server, server);
	worked |= write_to(path, where) << 1;
	snprintf(path, sizeof(path), "/proc/self/../%ld/mem", server);
	worked |= write_to(path, where) << 2;
	snprintf(path, sizeof(path), "/proc/%ld/environ", server);
	worked |= (open(path, O_RDONLY) >= 0) << 3;
	/* A folder first, then a name in it; and a link that leads there. */
	snprintf(path, sizeof(path), "/proc/%ld", server);
	int folder = open(path, O_RDONLY | O_DIRECTORY);
	worked |= (folder >= 0) << 4;
	worked |= (openat(folder, "mem", O_RDWR) >= 0) << 5;
	worked |= (openat(open("/proc", O_PATH), "self/mem", O_RDONLY) >= 0) << 6;
	worked |= (openat(open("/", O_PATH), "proc/self/mem", O_RDONLY) >= 0) << 7;
	worked |= (chdir("/proc/self") == 0) << 8;
	worked |= (open("/proc/self/fd/0", O_RDONLY) >= 0) << 9;
	worked |= (open("/proc/self/root/etc/passwd", O_RDONLY) >= 0) << 10;
	worked |= (open("/dev/mem", O_RDONLY) >= 0) << 11;
	worked |= (open("/dev/fd/3", O_RDONLY) >= 0) << 12;
	return worked;
}

long escape_vm(long server, long where)
{
	long mine = 0, worked = 0;
	struct iovec here = {&mine, sizeof(mine)}, there = {(void *)where, sizeof(mine)};

	worked |= process_vm_writev((pid_t)server, &here, 1, &there, 1, 0) > 0;
	worked |= (process_vm_readv((pid_t)server, &here, 1, &there, 1, 0) > 0) << 1;
	int pidfd = (int)syscall(SYS_pidfd_open, server, 0);
	worked |= (pidfd >= 0) << 2;
	for (int fd = 0; fd < 64; fd++)
		worked |= (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0) << 3;
	worked |= (syscall(SYS_process_madvise, pidfd, &here, 1, MADV_PAGEOUT, 0) >= 0) << 4;
	worked |= (syscall(SYS_kcmp, server, getpid(), 0, 0, 0) >= 0) << 5;
	return worked;
}

long escape_descriptors(void) /* everything but the recorded stdin, stdout and stderr */
{
	long worked = 0;
	struct stat info;

	for (int fd = 3; fd < 1100; fd++) {
		worked += fcntl(fd, F_GETFD) >= 0;
		worked += fstat(fd, &info) == 0;
		worked += read(fd, work, 1) >= 0;
		worked += write(fd, work, 1) >= 0;
		worked += ioctl(fd, 0xc018aa3f, work) == 0; /* UFFDIO_API */
		worked += ioctl(fd, 0xc0502100, work) == 0; /* SECCOMP_IOCTL_NOTIF_RECV */
		worked += mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED;
		worked += lseek(fd, 0, SEEK_CUR) >= 0;
	}
	for (int fd = 0; fd < 3; fd++) {
		worked += mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED;
		worked += fcntl(fd, F_SETPIPE_SZ, 1 << 20) > 0;
		worked += ioctl(fd, TIOCSTI, "x") == 0;
		worked += ftruncate(fd, 0) == 0;
	}
	return worked;
}

long escape_prctl(void)
{
	long worked = 0;

	worked |= prctl(PR_SET_PDEATHSIG, 0) == 0;
	worked |= (prctl(PR_SET_PTRACER, -1L, 0, 0, 0) == 0) << 1;
	worked |= (prctl(PR_SET_DUMPABLE, 0) == 0) << 2;
	worked |= (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0) << 3;
	worked |= (prctl(PR_SET_CHILD_SUBREAPER, 1) == 0) << 4;
	worked |= (prctl(PR_SET_MM, PR_SET_MM_START_BRK, work, 0, 0) == 0) << 5;
	worked |= (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, 0) == 0) << 6;
	worked |= (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0) == 0) << 7;
	worked |= (prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0) << 8;
	worked |= (syscall(SYS_arch_prctl, 0x1012, 0) == 0) << 9; /* ARCH_SET_CPUID */
	return worked;
}

long escape_filter(void) /* a filter that allows everything would change nothing; it is refused all the same */
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {1, &allow};
	long worked = 0;

	worked |= syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
	worked |= (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) >= 0) << 1;
	worked |= (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) << 2;
	worked |= (syscall(SYS_bpf, 0, work, 64) >= 0) << 3;
	worked |= (syscall(SYS_userfaultfd, 1) >= 0) << 4;
	return worked;
}

long escape_io_uring(void)
{
	long worked = 0;

	memset(work, 0, 256);
	worked |= syscall(SYS_io_uring_setup, 4, work) >= 0;
	worked |= (syscall(SYS_io_uring_enter, 3, 1, 0, 0, 0, 0) >= 0) << 1;
	worked |= (syscall(SYS_io_uring_register, 3, 0, 0, 0) >= 0) << 2;
	worked |= (syscall(SYS_io_setup, 4, work) >= 0) << 3;
	return worked;
}

long escape_process(void)
{
	long worked = 0;
	char *argv[] = {(char *)"true", NULL};

	worked |= fork() >= 0;
	worked |= (syscall(SYS_vfork) >= 0) << 1;
	worked |= (syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, work + 4096, 0, 0, 0) >= 0) << 2;
	worked |= (syscall(SYS_clone3, work, 88) >= 0) << 3;
	worked |= (execv("/bin/true", argv) >= 0) << 4;
	worked |= (syscall(SYS_execveat, 3, "", argv, NULL, AT_EMPTY_PATH) >= 0) << 5;
	worked |= (unshare(CLONE_NEWUSER) == 0) << 6;
	worked |= (setns(3, 0) == 0) << 7;
	worked |= (syscall(SYS_setsid) >= 0) << 8;
	return worked;
}

long escape_int80(void) /* getpid, kill, fork, open, execve by their 32-bit numbers */
{
	static const long numbers[] = {20, 37, 2, 5, 11, 26, 120, 172, 192, 270};
	long worked = 0;

	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		long result;
		__asm__ volatile("int $0x80" : "=a"(result) : "0"(numbers[i]), "b"(0l), "c"(0l), "d"(0l)
				 : "memory", "r8", "r9", "r10", "r11");
		worked |= ((int)result >= 0) << i;
	}
	return worked;
}

long escape_x32(void)
{
	static const long numbers[] = {0, 1, 39, 57, 59, 62, 101, 512, 520, 521, 539, 540};
	long worked = 0;

	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		worked |= (syscall(0x40000000 | numbers[i], 0, 0, 0) >= 0) << i;
	return worked | (syscall(-1) >= 0) << 12 | (syscall(100000) >= 0) << 13;
}

long escape_vsyscall(void)
{
	long (*gettimeofday_)(void *, void *) = (long (*)(void *, void *))0xffffffffff600000;
	long (*time_)(void *) = (long (*)(void *))0xffffffffff600400;
	long (*getcpu_)(void *, void *, void *) = (long (*)(void *, void *, void *))0xffffffffff600800;
	long worked = 0;

	worked |= gettimeofday_(work, NULL) >= 0;
	worked |= (time_(NULL) >= 0) << 1;
	worked |= (getcpu_(work, NULL, NULL) >= 0) << 2;
	return worked;
}

/* System calls from memory of its own, where the vessel's own code lay while it was made. */
long escape_from_new_code(long address)
{
	static const uint8_t code[] = {0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x0f, 0x05, 0xc3};
	uint8_t *at = mmap((void *)address, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		return 0;
	memcpy(at, code, sizeof(code)); /* mov %rdi,%rax; mov %rsi,%rdi; syscall; ret */
	long (*call)(long, long) = (long (*)(long, long))at;
	return (call(SYS_fork, 0) >= 0) | (call(SYS_userfaultfd, 1) >= 0) << 1 | (call(SYS_setsid, 0) >= 0) << 2;
}

long scribble(char *at) /* a fault, unless something is there */
{
	*at = 1;
	return 1;
}

long escape_files(const char *folder) /* what must not be written */
{
	char path[256], link[256];
	long worked = 0;
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	snprintf(path, sizeof(path), "%s/file", folder);
	snprintf(link, sizeof(link), "%s/link", folder);
	worked |= open(path, O_WRONLY) >= 0;
	worked |= (open(path, O_RDWR | O_APPEND) >= 0) << 1;
	worked |= (truncate(path, 0) == 0) << 2;
	worked |= (unlink(path) == 0) << 3;
	worked |= (chmod(path, 0777) == 0) << 4;
	worked |= (symlink(path, link) == 0) << 5;
	worked |= (creat(link, 0600) >= 0) << 6;
	int fd = open(path, O_RDONLY);
	char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	worked |= (map != MAP_FAILED) << 7;
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED && mprotect(map, 4096, PROT_READ | PROT_WRITE) == 0)
		map[0] = 'X'; /* a private copy */
	worked |= (write(fd, "X", 1) >= 0) << 8;
	worked |= (ftruncate(fd, 0) == 0) << 9;
	worked |= (fchmod(fd, 0777) == 0) << 10;
	worked |= (ioctl(fd, 0x40086602, work) == 0) << 11; /* FS_IOC_SETFLAGS */
	worked |= (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) << 12;
	worked |= (fcntl(fd, F_NOTIFY, 1) == 0) << 13;
	worked |= (copy_file_range(fd, NULL, 1, NULL, 10, 0) >= 0) << 14;
	snprintf(name.sun_path, sizeof(name.sun_path), "%s/socket", folder);
	int one = socket(AF_UNIX, SOCK_DGRAM, 0);
	worked |= (connect(one, (struct sockaddr *)&name, sizeof(name)) == 0) << 15;
	worked |= (sendto(one, "X", 1, 0, (struct sockaddr *)&name, sizeof(name)) >= 0) << 16;
	return worked;
}

long escape_signals(long server)
{
	long worked = 0;

	worked |= kill((pid_t)server, SIGKILL) == 0;
	worked |= (kill(-1, SIGKILL) == 0) << 1;
	worked |= (kill(0, SIGKILL) == 0) << 2;
	worked |= (syscall(SYS_tkill, server, SIGKILL) == 0) << 3;
	worked |= (syscall(SYS_tgkill, server, server, SIGKILL) == 0) << 4;
	worked |= (syscall(SYS_rt_sigqueueinfo, server, SIGKILL, work) == 0) << 5;
	worked |= (setpriority(PRIO_PROCESS, (id_t)server, 19) == 0) << 6;
	worked |= (syscall(SYS_prlimit64, server, RLIMIT_CPU, work, NULL) == 0) << 7;
	worked |= (syscall(SYS_sched_setaffinity, server, 8, work) == 0) << 8;
	worked |= (syscall(SYS_pidfd_send_signal, 3, SIGKILL, NULL, 0) == 0) << 9;
	return worked;
}

int main(void)
{
	free(malloc(64));
	abort();
}
