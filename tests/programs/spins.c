/* Hands work to a thread and spins until it is done, in the ways of pools and spinlocks; and calls
 * that run for as long, but get somewhere. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

volatile int work, done, parked = 1; /* parked: the pool takes nothing */
volatile double drift;
int ends[2];

int ask(void)
{
	done = 0;
	work = 1;
	while (!done)
		sched_yield();
	return 42;
}

int ask_hot(void)
{
	done = 0;
	while (!done)
		;
	return 42;
}

int ask_slow(void)
{
	done = 0;
	while (!done)
		usleep(50);
	return 42;
}

static int turn(int n)
{
	return done ? n : turn(n + 1);
}

int ask_locked(void)
{
	while (__atomic_exchange_n(&work, 1, __ATOMIC_ACQUIRE))
		while (work)
			sched_yield();
	return turn(0);
}

/* Another thread is to write to the pipe. */
int ask_pipe(void)
{
	char byte;

	while (read(ends[0], &byte, 1) < 0)
		sched_yield();
	return 42;
}

/* Only a register of the processor's changes. */
long count(long upto)
{
	register long i = 0;

	while (i < upto)
		i++;
	return i;
}

int grow(long upto)
{
	double step = 1;

	for (double x = 0; x < (double)upto; x += step)
		;
	return 1;
}

int until(double seconds)
{
	struct timespec from, now;

	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((double)(now.tv_sec - from.tv_sec) + (double)(now.tv_nsec - from.tv_nsec) / 1e9 < seconds);
	return 1;
}

static void *pool(void *arg)
{
	for (;;) {
		while (!work || parked)
			pause();
		work = 0;
		done = 1;
	}
	return arg;
}

int main(void)
{
	pthread_t thread;

	if (pipe2(ends, O_NONBLOCK) < 0)
		return 1;
	pthread_create(&thread, NULL, pool, NULL);
	work = 1;
	count(1);
	grow(1);
	until(0);
	abort();
}
