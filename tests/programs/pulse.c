/* Threads that are never at rest: each counts in a register and stores the count at once, so that in
 * one instant register and memory differ by at most one.  The main thread calls `beat`, and stores
 * what it is about. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS 3

volatile long counts[THREADS];
volatile long beats;
volatile int done;

static void *run(void *argument)
{
	volatile long *count = argument;

	/* r12 counts; *count follows. */
	__asm__ volatile("xor %%r12, %%r12\n"
			 "1: inc %%r12\n"
			 "mov %%r12, (%0)\n"
			 "cmpl $0, (%1)\n"
			 "je 1b\n"
			 :
			 : "r"(count), "r"(&done)
			 : "r12", "memory", "cc");
	return NULL;
}

__attribute__((noinline)) long beat(long number)
{
	beats = number;
	return number + 1;
}

__attribute__((noinline)) void linger(long milliseconds)
{
	struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};

	while (nanosleep(&left, &left))
		puts("interrupted");
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 20;
	int threads = argc > 2 ? atoi(argv[2]) : THREADS;
	pthread_t ids[THREADS];

	for (int i = 0; i < threads && i < THREADS; i++)
		pthread_create(&ids[i], NULL, run, (void *)&counts[i]);
	for (int i = 0; i < threads && i < THREADS; i++)
		while (!counts[i])
			;
	for (long i = 0; i < rounds;) {
		i = beat(i);
		if (argc > 3)
			linger(atol(argv[3]));
	}
	done = 1;
	for (int i = 0; i < threads && i < THREADS; i++)
		pthread_join(ids[i], NULL);
	printf("%ld beats\n", beats + 1);
	return 0;
}
