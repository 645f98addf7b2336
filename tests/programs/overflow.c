/* overflow.c - a crash by stack overflow, in the main thread or (any argument) in another one, beneath
 * whose guard page lies ("beside") the stack of a third. */
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int counter = 41;

int bump(int k)
{
	return counter += k;
}

/* More stack than a page, and some of it kept up to the end. */
int format(int number)
{
	char text[20000];

	memset(text, 0, sizeof(text));
	snprintf(text, sizeof(text), "%019999d", number);
	return text[19998] - '0';
}

struct pair {
	long first, second[7];
};

struct pair twice(struct pair p, long a, long b, long c, long d, long e, long f, long g)
{
	p.first *= 2;
	p.second[6] = a + b + c + d + e + f + g;
	return p;
}

struct pair one = { 21, { 0 } };

struct large {
	char text[8192];
} large;

int take(struct large l)
{
	return l.text[0];
}

jmp_buf out;

void leaves(int n)
{
	longjmp(out, n);
}

int deep(int n)
{
	volatile char pad[16000]; /* few frames: gdb shows them all */

	pad[n % 1000] = (char)n;
	return n < 0 ? 0 : deep(n + 1) + pad[5];
}

/* Frames smaller than the guard page: it is met, and not passed over. */
int slowly(int n)
{
	volatile char pad[1500];

	pad[n % 1000] = (char)n;
	return n < 0 ? 0 : slowly(n + 1) + pad[5];
}

long kept;

static void *stay(void *unused)
{
	long here = 7;

	(void)unused;
	kept = (long)&here;
	for (;;)
		pause();
	return NULL;
}

static void *overflow_beside(void *unused)
{
	pthread_t other;

	if (pthread_create(&other, NULL, stay, NULL) == 0)
		while (!*(volatile long *)&kept)
			;
	(void)unused;
	if (setjmp(out) == 0)
		slowly(0);
	return NULL;
}

static void *run(void *unused)
{
	(void)unused;
	deep(0);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	bump(0);
	bool beside = argc > 1 && strcmp(argv[1], "beside") == 0;
	if (argc > 1 && pthread_create(&thread, NULL, beside ? overflow_beside : run, NULL) == 0)
		pthread_join(thread, NULL);
	return deep(0);
}
