/* Built with musl (tests/gdb/test_strangers.py): its heap, its thread-locals, its raise(). */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct node {
	int value;
	struct node *next;
} *head;
int counter = 3;
__thread int own = 9;
__thread char word[16] = "tee";

int push(int value)
{
	struct node *fresh = malloc(sizeof(*fresh));

	fresh->value = value;
	fresh->next = head;
	head = fresh;
	own++;
	return ++counter;
}

static void *wait_for_ever(void *ready)
{
	own = 77;
	pthread_barrier_wait(ready);
	for (;;)
		pause();
	return NULL;
}

int main(void)
{
	pthread_barrier_t ready;
	pthread_t thread;

	pthread_barrier_init(&ready, NULL, 2);
	pthread_create(&thread, NULL, wait_for_ever, &ready);
	pthread_barrier_wait(&ready);
	push(1);
	push(2);
	abort();
}
