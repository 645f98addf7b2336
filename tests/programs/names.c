// Functions that note each write of their own: "0xADDRESS SIZE NAME", NAME as gdb should call it.
// usage: names PLUGIN abort
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum colour { RED, GREEN = 5, BLUE };

struct node {
	int value;
	struct node *next;
};

struct entry {
	char key[12];
	double weight;
	struct entry *next;
};

struct pair {
	short left, right;
};

struct mixed {
	struct pair pair[3];
	union {
		float real;
		unsigned int bits;
	};
	unsigned int low : 3, high : 5;
	signed int sign : 4;
	enum colour colour;
	void (*handler)(int);
	const char *label;
	long double wide;
	_Bool flag;
};

struct text {
	int length;
	char bytes[];
};

struct opaque;

struct node *head;
struct node table[5];
struct mixed mixed = {.label = "before", .colour = GREEN};
static struct mixed hidden;
struct entry *buckets[4];
struct entry **grown;
int *numbers;
char *words;
struct text *flexible;
void *untyped;
char message[40] = "hello";
char blob[20000];
double matrix[3][4];
int same = 7;
volatile int *volatile pointer_in; // to a frame of another thread, or of main
__thread int tls_int = 3;
__thread struct pair tls_pair = {1, 2};
static __thread long tls_hidden;
extern int *plugin_place(void);
int (*plugin_set)(int);
static sem_t ready;

static char *hex(char *at, unsigned long number)
{
	char digits[16];
	int count = 0;

	do
		digits[count++] = "0123456789abcdef"[number % 16];
	while (number /= 16);
	while (count)
		*at++ = digits[--count];
	return at;
}

static void note(const volatile void *address, unsigned long size, const char *name)
{
	char line[200] = "0x", *at = hex(line + 2, (unsigned long)address);

	*at++ = ' ';
	at = hex(at, size);
	*at++ = ' ';
	while (*name)
		*at++ = *name++;
	*at++ = '\n';
	if (write(1, line, (size_t)(at - line)) < 0)
		_exit(9);
}

#define SET(lvalue, value) ((lvalue) = (value), note(&(lvalue), sizeof(lvalue), #lvalue))

void handle(int unused)
{
	(void)unused;
}

int set_globals(int n)
{
	SET(table[3].next, &table[1]);
	SET(table[1].value, n);
	SET(matrix[1][2], n / 8.0);
	SET(matrix[2][3], -1e300);
	SET(mixed.pair[2].right, (short)-n);
	SET(mixed.colour, BLUE);
	SET(mixed.handler, handle);
	SET(mixed.flag, 1);
	SET(mixed.wide, 2.5L);
	return n;
}

int set_strings(int n)
{
	SET(mixed.label, "after");
	message[0] = 'J';
	message[4] = 'y';
	note(message, sizeof(message), "message");
	blob[15000] = 1;
	note(&blob[15000], 1, "blob[15000]");
	return n;
}

int set_bits(int n)
{
	mixed.low = (unsigned int)n & 7;
	mixed.sign = -3;
	hidden.high = 21;
	return n;
}

int set_union(int n)
{
	SET(mixed.real, n + 0.5f);
	return n;
}

int set_hidden(int n)
{
	SET(hidden.pair[0].left, (short)n);
	return n;
}

int count_calls(int n)
{
	static int calls;

	calls += n;
	note(&calls, sizeof(calls), "count_calls::calls");
	{
		static struct pair inner;

		inner.right = (short)n;
		note(&inner.right, sizeof(inner.right), "count_calls::inner.right");
	}
	return calls;
}

int set_same(int n)
{
	*(volatile int *)&same = 7;
	return n;
}

int set_tls(int n)
{
	SET(tls_int, n);
	SET(tls_pair.right, (short)n);
	SET(tls_hidden, n);
	return n;
}

int set_plugin(int n)
{
	return plugin_set(n);
}

int push(int value)
{
	struct node *fresh = malloc(sizeof(*fresh));

	SET(fresh->value, value);
	SET(fresh->next, head);
	SET(head, fresh);
	return value;
}

int set_list(int n)
{
	SET(head->next->value, n);
	SET(head->next->next->next, NULL);
	return n;
}

int set_far(int n) // the tenth of the list
{
	struct node *at = head;

	for (int i = 0; i < 9; i++)
		at = at->next;
	at->value = n;
	note(&at->value, sizeof(at->value), "FAR");
	return n;
}

int set_blocks(int n)
{
	SET(buckets[2]->next->weight, n / 4.0);
	SET(grown[1]->weight, 0.25);
	SET(numbers[70], n);
	memcpy(flexible->bytes, "flexed", 7);
	note(flexible->bytes, 7, "flexible->bytes");
	memcpy(words, "WORDS", 5);
	note(words, 12, "words");
	((char *)untyped)[8] = (char)n;
	return n;
}

int drop(int n) // the first of the list goes
{
	struct node *old = head;

	SET(head, old->next);
	old->value = n;
	free(old);
	return n;
}

int allocate(int count)
{
	void *at[64];

	for (int i = 0; i < count; i++)
		memset(at[i] = malloc((size_t)i * 40 + 1), 1, (size_t)i * 40 + 1);
	for (int i = 0; i < count; i += 2)
		free(at[i]);
	return count / 2;
}

int balance(int count) // allocates and frees alike
{
	void *at[64];

	for (int i = 0; i < count; i++)
		memset(at[i] = malloc((size_t)i * 40 + 1), 1, (size_t)i * 40 + 1);
	for (int i = 0; i < count; i++)
		free(at[i]);
	return count;
}

int large(int n)
{
	numbers = malloc(1000000);
	SET(numbers[100], n);
	return n;
}

int map(int pages)
{
	char *at = mmap(NULL, (size_t)pages * 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	at[10] = 1;
	return at != MAP_FAILED;
}

int through_pointer(int n)
{
	*pointer_in = n;
	return n;
}

int give_back(struct node *given, int n)
{
	given->value = n;
	note(&given->value, sizeof(given->value), "GIVEN");
	return n;
}

struct node *make_node(int n)
{
	struct node *fresh = malloc(sizeof(*fresh));

	fresh->value = n;
	fresh->next = NULL;
	note(&fresh->value, sizeof(fresh->value), "MADE");
	return fresh;
}

int look(int n)
{
	return table[n].value + (int)matrix[1][1];
}

int say(int n)
{
	return (int)write(1, "said\n", 5) + n;
}

static void *worker(void *unused)
{
	volatile int on_stack[2] = {10, 20};
	char *own = malloc(100);

	strcpy(own, "thread's own arena");
	words = own;
	tls_int = 33;
	plugin_set(44);
	pointer_in = &on_stack[1];
	(void)unused;
	sem_post(&ready);
	for (;;)
		pause();
	return NULL;
}

static void fill(void)
{
	for (int i = 0; i < 12; i++) {
		struct node *fresh = malloc(sizeof(*fresh));

		*fresh = (struct node){i, head};
		head = fresh;
	}
	grown = calloc(6, sizeof(*grown));
	for (int i = 0; i < 6; i++) {
		grown[i] = calloc(1, sizeof(**grown));
		strcpy(grown[i]->key, "k");
	}
	for (int i = 0; i < 4; i++) {
		buckets[i] = calloc(1, sizeof(**buckets));
		buckets[i]->next = calloc(1, sizeof(**buckets));
	}
	numbers = calloc(100, sizeof(*numbers));
	flexible = malloc(sizeof(*flexible) + 20);
	strcpy(flexible->bytes, "flexible");
	untyped = calloc(3, 8);
}

int main(int argc, char **argv)
{
	volatile int in_main = 1;
	pthread_t thread;
	void *plugin;

	if (argc < 2)
		return 2;
	plugin = dlopen(argv[1], RTLD_NOW);
	if (!plugin)
		return 3;
	*(void **)&plugin_set = dlsym(plugin, "plugin_set");
	fill();
	sem_init(&ready, 0, 0);
	pthread_create(&thread, NULL, worker, NULL);
	sem_wait(&ready);
	words = strdup("words of it");
	plugin_set(1);
	if (argc > 2)
		pointer_in = &in_main;
	free(malloc(2000));
	abort();
	return in_main;
}
