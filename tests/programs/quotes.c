// Prices that two threads ask for; one lock over the table.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct quote {
	const char *name;
	int cents;
};

static struct quote table[] = {{"apple", 30}, {"pear", 45}, {"plum", 0}, {"fig", 90}};
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static long asked;

static struct quote *find(const char *name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (!strcmp(table[i].name, name))
			return &table[i];
	return NULL;
}

int price(const char *name)
{
	struct quote *q;
	int cents;

	pthread_mutex_lock(&table_lock);
	asked++;
	q = find(name);
	if (!q || !q->cents)
		return -1;
	cents = q->cents;
	pthread_mutex_unlock(&table_lock);
	return cents;
}

static void *till(void *basket)
{
	long total = 0;

	for (const char **name = basket; *name; name++)
		total += price(*name);
	return (void *)total;
}

int main(void)
{
	static const char *first[] = {"apple", "fig", "plum", NULL}, *second[] = {"pear", "apple", NULL};
	pthread_t one, two;

	pthread_create(&one, NULL, till, first);
	pthread_join(one, NULL);
	pthread_create(&two, NULL, till, second);
	pthread_setname_np(two, "till 2");
	pthread_join(two, NULL);
	return 0;
}
