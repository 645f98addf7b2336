// Heaps that are not as usual.  usage: heirs [plain | fork | arena | torn | list]
// fork: the child's heap grew in a mapping of its own; arena: so did a thread's heap; torn: a
// header was overwritten; list: so was the link of a free block.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 3000

__thread long tables[1200]; // far more thread-locals than a page has room for

struct node {
	long key;
	double weight;
	struct node *next;
};

struct node *list;
void *blocks[MANY];
long taken;

static void add(long key)
{
	struct node *fresh = malloc(sizeof *fresh);

	fresh->key = key;
	fresh->weight = 0.5;
	fresh->next = list;
	list = fresh;
}

int drop(int count) // how many were freed
{
	int freed = 0;

	for (; list && freed < count; freed++) {
		struct node *next = list->next;

		free(list);
		list = next;
	}
	return freed;
}

long take(int count) // that many blocks of 1,000 bytes
{
	for (int i = 0; i < count && taken < MANY; i++, taken++) {
		blocks[taken] = malloc(1000);
		memset(blocks[taken], (int)taken, 1000);
	}
	return taken;
}

long give(int count) // the last ones back
{
	for (int i = 0; i < count && taken; i++)
		free(blocks[--taken]);
	return taken;
}

static void *inherit(void *unused)
{
	(void)unused;
	for (int i = 0; i < 6; i++)
		add(i);
	take(100);
	pid_t child = fork();
	if (!child) {
		take(1500);
		abort();
	}
	waitpid(child, NULL, 0);
	raise(SIGKILL); // the child's core is wanted
	return NULL;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "plain";
	pthread_t thread;

	tables[0] = 1;
	if (!strcmp(how, "fork"))
		inherit(NULL);
	if (!strcmp(how, "arena")) {
		pthread_create(&thread, NULL, inherit, NULL);
		pthread_join(thread, NULL);
	}
	for (int i = 0; i < 20; i++)
		add(i);
	take(100);
	if (!strcmp(how, "torn"))
		memset((char *)blocks[5] + 1000, 0xee, 16); // into the next block's header
	if (!strcmp(how, "list")) {
		struct node *gone = list; // the cache of free blocks leads nowhere

		drop(7);
		*(long *)(void *)gone = 0x1234567812345678;
		drop(1);
	}
	abort();
}
