/* Stacks of the program's own: `fiber` crashes on one whose outermost pc is 0, `left` has a function
 * that leaves for a frame of its callers' by setcontext, which gdb does not see. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

struct node {
	int value;
	struct node *next;
};

static ucontext_t sched, fiber, out;
static char stack[65536];
static volatile int again;
unsigned long hidden; /* no pointer leads to the nodes from here */

__attribute__((noinline)) int push(int value)
{
	struct node *made = malloc(sizeof(*made));

	made->value = value;
	made->next = NULL;
	hidden = ~(unsigned long)made;
	return value;
}

__attribute__((noinline)) int leave(int n)
{
	again = n;
	setcontext(&out);
	return n;
}

static void body(void)
{
	abort();
}

int main(int argc, char **argv)
{
	push(1);
	getcontext(&out);
	if (again)
		exit(3);
	if (argc < 2 || strcmp(argv[1], "fiber"))
		abort();
	getcontext(&fiber);
	fiber.uc_stack.ss_sp = stack;
	fiber.uc_stack.ss_size = sizeof(stack);
	fiber.uc_link = NULL;
	makecontext(&fiber, body, 0);
	return swapcontext(&sched, &fiber);
}
