/* overflow.c - a crash by stack overflow, in the main thread or (any argument) in another one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int deep(int n)
{
	volatile char pad[16000]; /* few frames: gdb shows them all */

	pad[n % 1000] = (char)n;
	return n < 0 ? 0 : deep(n + 1) + pad[5];
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

	(void)argv;
	bump(0);
	if (argc > 1 && pthread_create(&thread, NULL, run, NULL) == 0)
		pthread_join(thread, NULL);
	return deep(0);
}
