/* Life takes turns: forks, becomes another program, forbids itself system calls, dies. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long stage;
char *memory;

__attribute__((noinline)) void reached(long number)
{
	stage = number;
}

static void forbid(long number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(*code), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
		exit(3);
}

static void fork_one(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		memset(memory, 7, 4 * 4096);
		reached(100);
		_exit(5);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "exit";

	memory = malloc(16 * 4096);
	memset(memory, 1, 16 * 4096);
	if (!strcmp(how, "seccomp"))
		forbid(SYS_userfaultfd);
	reached(1);
	memset(memory, 2, 4096);
	reached(2);
	if (!strcmp(how, "fork"))
		fork_one();
	if (!strcmp(how, "exec"))
		execl("/bin/echo", "echo", "another program", (char *)NULL);
	if (!strcmp(how, "abort"))
		abort();
	if (!strcmp(how, "wait"))
		pause();
	reached(3);
	memset(memory, 3, 4096);
	reached(4);
	return argc > 2 ? atoi(argv[2]) : 0;
}
