// A program that another instant of looks quite different: threads and a library come and go.
// `at` is called at each step, from several functions; in the end it crashes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum phase { EARLY, MIDDLE, LATE };

struct node {
	int value;
	struct node *next;
};

struct node *head;
int counter;
enum phase phase;
char text[32] = "begin";
__thread long mine = 100;
struct label {
	const char *text;
	int step;
} label;
const char *phrase;
int (*chosen)(void);
static long odd;
static sem_t ready, leave;

int push(int value)
{
	static int pushed;
	struct node *fresh = malloc(sizeof *fresh);

	fresh->value = value;
	fresh->next = head;
	head = fresh;
	counter++;
	mine++;
	pushed += 2;
	return counter;
}

int sum(void)
{
	int total = 0;

	for (struct node *n = head; n; n = n->next)
		total += n->value;
	return total;
}

int spin(int value)
{
	while (*(volatile int *)&counter == value)
		;
	return counter;
}

int third(int value)
{
	return 100 / (value - 3);
}

static int none(void)
{
	return 0;
}

void at(int step)
{
	odd = step * 3;
}

static void nested(int step)
{
	int local = step * 1000;

	at(local / 1000);
}

static void *worker(void *unused)
{
	mine = 42;
	sem_post(&ready);
	sem_wait(&leave);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *plugin = NULL;

	if (argc < 2)
		return 1;
	sem_init(&ready, 0, 0);
	sem_init(&leave, 0, 0);
	for (int step = 0; step < 6; step++) {
		push(step * 10);
		phase = step / 2;
		snprintf(text, sizeof text, "step %d", step);
		phrase = step % 2 ? "odd one" : "even";
		label = (struct label){ phrase, step };
		chosen = step % 2 ? sum : none;
		if (step == 2) {
			pthread_create(&thread, NULL, worker, NULL);
			sem_wait(&ready);
		}
		if (step == 3)
			plugin = dlopen(argv[1], RTLD_NOW);
		if (step == 5) {
			dlclose(plugin);
			sem_post(&leave);
			pthread_join(thread, NULL);
		}
		if (step % 2)
			nested(step);
		else
			at(step);
	}
	*(volatile int *)8 = 1; // the crash
	return 0;
}
