/* A program that is recorded while everything around it is killed, and that notices whatever is done
 * to it: threads that write pages and compare them, compute in vector registers, and sleep in system
 * calls that no signal may end.  `target ROUNDS` ends by itself with status 3; without, it answers
 * each line of its input, "whole" or what is broken, and ends with it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS 3
#define PAGES 48
#define WORDS 512

long area[THREADS][PAGES][WORDS] __attribute__((aligned(4096)));
volatile long rounds[THREADS];
volatile int done;
static const char *volatile broken;

__attribute__((noinline)) long work(int thread, long number)
{
	long(*page)[WORDS] = area[thread];
	double sum = 0, expected = 0;

	for (int i = 0; i < PAGES; i++)
		if (page[i][1] != ~page[i][0] || page[i][WORDS - 1] != page[i][0])
			broken = "memory";
	for (int i = 0; i < PAGES; i += 1 + number % 3) {
		page[i][0] = number + i;
		page[i][1] = ~(number + i);
		page[i][WORDS - 1] = number + i;
	}
	for (int i = 0; i < 1000; i++)
		sum += i * 0.5;
	expected = 999 * 1000 / 2 * 0.5;
	if (sum != expected)
		broken = "registers";
	return number + 1;
}

static void rest(long nanoseconds)
{
	struct timespec left = {0, nanoseconds};

	if (nanosleep(&left, NULL))
		broken = errno == EINTR ? "a signal" : "nanosleep";
}

static void *run(void *argument)
{
	int thread = (int)(long)argument;

	while (!done) {
		rounds[thread] = work(thread, rounds[thread]);
		rest(100000 * (1 + thread));
	}
	return NULL;
}

static int say(void)
{
	long before[THREADS];

	memcpy(before, (const void *)rounds, sizeof before);
	for (int i = 0; i < THREADS; i++)
		for (int tries = 0; rounds[i] == before[i]; tries++) {
			rest(1000000);
			if (tries > 10000)
				broken = "a thread stands still";
			if (broken)
				break;
		}
	puts(broken ? broken : "whole");
	return fflush(stdout);
}

int main(int argc, char **argv)
{
	long limit = argc > 1 ? atol(argv[1]) : 0;
	pthread_t ids[THREADS];
	char line[64];

	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < PAGES; j++)
			area[i][j][1] = ~0L;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&ids[i], NULL, run, (void *)i);
	if (limit)
		while (rounds[THREADS - 1] < limit)
			rest(1000000);
	else {
		say();
		while (fgets(line, sizeof line, stdin))
			say();
	}
	done = 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	if (limit)
		puts(broken ? broken : "whole");
	return broken ? 4 : 3;
}
