// Waits, in a root of its own, to be killed or looked at: tools/foreign.  What its functions need: only
// the program; its library; the C library, whose functions are bound when they are first called.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node {
	int value;
	struct node *next;
};

int numbers[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
struct node *head;
int counter = 40;
static __thread int mine = 5;
static pthread_barrier_t ready;

int lib_add(int x);
extern int lib_calls;

int sum(void)
{
	int total = 0;

	for (int i = 0; i < 10; i++)
		total += numbers[i];
	return total;
}

int bump(int by)
{
	counter += by;
	return counter;
}

int walk(void)
{
	int total = 0;

	for (struct node *n = head; n; n = n->next)
		total += n->value;
	return total;
}

int tls(void)
{
	return ++mine;
}

struct node *push(int value)
{
	struct node *fresh = malloc(sizeof(*fresh));

	fresh->value = value;
	fresh->next = head;
	head = fresh;
	return fresh;
}

int say(int x)
{
	printf("x is %d, %.2f\n", x, x / 4.0);
	fflush(stdout);
	return x + 1;
}

static int less(const void *a, const void *b)
{
	return *(const int *)b - *(const int *)a;
}

int *sorted(void)
{
	qsort(numbers, 10, sizeof(numbers[0]), less);
	return numbers;
}

char *twice(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1);

	strcpy(out, text);
	return strcat(out, text);
}

double power(double x)
{
	return pow(x, 1.5);
}

static void *thread(void *number)
{
	mine += (int)(long)number;
	pthread_barrier_wait(&ready);
	for (;;)
		pause();
	return NULL;
}

__attribute__((noinline)) static void waits(int depth)
{
	int local = depth * 7;

	if (depth)
		waits(depth - 1);
	else
		for (;;)
			pause();
	numbers[0] = local;
}

int main(void)
{
	pthread_t id;

	for (int i = 1; i < 5; i++)
		push(i * i);
	lib_add(1);
	pthread_barrier_init(&ready, NULL, 3);
	for (long i = 1; i < 3; i++)
		pthread_create(&id, NULL, thread, (void *)i);
	pthread_barrier_wait(&ready);
	puts("ready");
	fflush(stdout);
	waits(3);
	return 0;
}
