// The sample of `make demo`: a counter, a linked list, a thread-local, a worker; then it crashes.
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct node {
	int value;
	struct node *next;
};

struct node *head;
int counter;
__thread long tls_hits = 1000;

int push(int value)
{
	struct node *fresh = malloc(sizeof *fresh);

	fresh->value = value;
	fresh->next = head;
	head = fresh;
	counter++;
	tls_hits++;
	return counter;
}

int sum(void)
{
	int total = 0;

	for (struct node *n = head; n; n = n->next)
		total += n->value;
	return total;
}

static int lookup(int value)
{
	struct node *n = head;

	while (n->value != value)
		n = n->next; // no check for the end of the list: the crash
	return n->value;
}

static sem_t ready;

static void *worker(void *name)
{
	tls_hits = 42;
	pthread_setname_np(pthread_self(), name);
	sem_post(&ready);
	for (;;)
		pause();
	return NULL;
}

int main(void)
{
	static char names[2][16] = {"worker-a", "worker-b"};
	pthread_t thread[2];

	sem_init(&ready, 0, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, worker, names[i]);
	for (int i = 0; i < 2; i++)
		sem_wait(&ready);
	counter = 1034;
	for (int i = 0; i < 7; i++)
		push(i);
	printf("%d\n", lookup(99));
	return 0;
}
