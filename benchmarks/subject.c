/* The benchmarks' inferior: a short call that writes a few pages, and calls that touch many. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 16384l

struct node {
	int value;
	struct node *next;
} *head;

int counter = 1041;
char big[PAGES * 4096] = {1};

int push(int value)
{
	struct node *node = malloc(sizeof(*node));

	node->value = value;
	node->next = head;
	head = node;
	return ++counter;
}

/* Reads one byte of each of the first `pages` pages. */
long touch(long pages)
{
	long sum = 0;

	for (long i = 0; i < pages; i++)
		sum += ((volatile char *)big)[i * 4096];
	return sum;
}

/* Writes one byte of each. */
long dirty(long pages)
{
	for (long i = 0; i < pages; i++)
		((volatile char *)big)[i * 4096 + 8]++;
	return pages;
}

__attribute__((noinline)) void ready(void)
{
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	(void)argv;
	memset(big, 1, sizeof(big));
	push(1);
	push(2);
	ready();
	if (argc == 1)
		raise(SIGABRT);
	return 0;
}
