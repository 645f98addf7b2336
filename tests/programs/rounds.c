/* Threads that change their own memory round by round; `tick` is called after each one. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORKERS 3

struct node {
	struct node *next;
	long key;
	char text[24];
};

struct node *head;
long counter;
double mean_of_keys;
static __thread long mine;
long shares[WORKERS];
char *mapped; /* a mapping that comes at round 3, moves at 6 and goes at 9 */
static pthread_barrier_t begin, end;

long total(void)
{
	long sum = 0;

	for (struct node *n = head; n; n = n->next)
		sum += n->key;
	return sum;
}

long add(long key)
{
	struct node *n = malloc(sizeof(*n));

	snprintf(n->text, sizeof(n->text), "node %ld", key);
	n->key = key;
	n->next = head;
	head = n;
	mine++;
	return ++counter;
}

double scaled(double by)
{
	return mean_of_keys * by;
}

long mapped_sum(void)
{
	long sum = 0;

	for (int i = 0; mapped && i < 4 * 4096; i++)
		sum += mapped[i];
	return sum;
}

const char *newest(void)
{
	return head ? head->text : "";
}

void tick(int round)
{
	mean_of_keys = counter ? (double)total() / (double)counter : round;
}

static void *work(void *argument)
{
	long index = (long)argument;

	for (;;) {
		pthread_barrier_wait(&begin);
		shares[index] += ++mine * (index + 1);
		pthread_barrier_wait(&end);
	}
	return NULL;
}

static void map_and_move(int round)
{
	if (round == 3)
		mapped = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (round == 6)
		mapped = mremap(mapped, 4 * 4096, 8 * 4096, MREMAP_MAYMOVE);
	if (mapped && round < 9)
		mapped[round % 4 * 4096] += (char)round;
	if (round == 8)
		madvise(mapped, 4096, MADV_DONTNEED);
	if (round == 9) {
		munmap(mapped, 8 * 4096);
		mapped = NULL;
	}
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 12;
	pthread_t threads[WORKERS];

	pthread_barrier_init(&begin, NULL, WORKERS + 1);
	pthread_barrier_init(&end, NULL, WORKERS + 1);
	for (long i = 0; i < WORKERS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	for (int round = 0; round < rounds; round++) {
		pthread_barrier_wait(&begin);
		for (int i = 0; i < 100; i++)
			add(round * 100 + i);
		map_and_move(round);
		pthread_barrier_wait(&end);
		tick(round);
	}
	printf("%ld\n", total());
	return 0;
}
