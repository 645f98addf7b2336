/* inner_stack.c - a crash on a stack inside of something: of a variable ("static"), of a block of
 * malloc's ("heap"), of a variable with a counter at its beginning ("fields"); in a signal handler, or
 * in a coroutine (a second argument). */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { SIZE = 65536 };

static char room[SIZE];

static struct {
	int used;
	char room[SIZE];
} fiber;

int square(int x)
{
	volatile int y = x;

	return y * x;
}

int use(int n)
{
	fiber.used += n;
	return square(fiber.used);
}

int deep(int n)
{
	volatile char pad[3000];

	pad[0] = (char)n;
	return n ? deep(n - 1) + pad[0] : 0;
}

static void crash(int unused)
{
	(void)unused;
	abort();
}

int main(int argc, char **argv)
{
	char *stack = room;

	if (argc > 1 && strcmp(argv[1], "heap") == 0)
		stack = malloc(SIZE);
	if (argc > 1 && strcmp(argv[1], "fields") == 0)
		stack = fiber.room;
	if (argc > 2) {
		static ucontext_t here, there;
		getcontext(&there);
		there.uc_stack.ss_sp = stack;
		there.uc_stack.ss_size = SIZE;
		there.uc_link = &here;
		makecontext(&there, (void (*)(void))crash, 1, 0);
		swapcontext(&here, &there);
	}
	stack_t other = { .ss_sp = stack, .ss_size = SIZE };
	struct sigaction action = { .sa_handler = crash, .sa_flags = SA_ONSTACK };
	sigaltstack(&other, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	return 0;
}
