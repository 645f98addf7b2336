// Allocates and frees, and keeps accounts of its own.  usage: heaps [arena]
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX 4096

static void *blocks[MAX];
static size_t sizes[MAX];
unsigned long seed = 1;
long count, bytes; // what the last call of `mix` left over: blocks, and bytes that were asked for

static unsigned int next(unsigned int below)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (unsigned int)(seed >> 33) % below;
}

static size_t some_size(int scale)
{
	return next(10) ? 1 + next((unsigned int)scale) : 1 + next(200000);
}

// `steps` times: allocate, free, or change the size of some block.  The result: how many there are.
long mix(int steps, int scale)
{
	for (int i = 0; i < steps; i++) {
		unsigned int at = next(MAX);
		if (!blocks[at]) {
			sizes[at] = some_size(scale);
			blocks[at] = malloc(sizes[at]);
			memset(blocks[at], (int)at, sizes[at] < 64 ? sizes[at] : 64);
			count++;
			bytes += (long)sizes[at];
		} else if (next(3) == 0) {
			size_t size = some_size(scale);
			blocks[at] = realloc(blocks[at], size);
			bytes += (long)size - (long)sizes[at];
			sizes[at] = size;
		} else {
			free(blocks[at]);
			blocks[at] = NULL;
			count--;
			bytes -= (long)sizes[at];
		}
	}
	return count;
}

long mixed(int steps)
{
	return mix(steps, 900);
}

long usable(void) // bytes of all blocks, as malloc counts them
{
	long sum = 0;

	for (int i = 0; i < MAX; i++)
		sum += blocks[i] ? (long)malloc_usable_size(blocks[i]) : 0;
	return sum;
}

void *place(int index)
{
	return blocks[index];
}

int damage(int unused) // writes over the size of the chunk behind some block
{
	for (int i = 0; i < MAX; i++) {
		if (!blocks[i] || sizes[i] > 900)
			continue;
		memset((char *)blocks[i] + sizes[i], 0xff, 48);
		return i;
	}
	return unused;
}

static void *worker(void *unused)
{
	mix(600, 900);
	abort();
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	(void)argv;
	if (argc > 1) {
		pthread_create(&thread, NULL, worker, NULL);
		pthread_join(thread, NULL);
	}
	mix(600, 900);
	abort();
}
