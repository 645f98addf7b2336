// A heap with a block in each kind of list, and one damage.  usage: blocks DAMAGE [COUNT]
// What malloc itself says of it stands in `info` when the program aborts.
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct item {
	long key;
	char *name;
	struct item *next;
};

struct cache {
	int count;
	struct item *items[8];
};

struct buffer {
	long len;
	char *text;
};

struct cache cache;
struct buffer *input;     // its text is the block that is written over its end
struct item *stale;       // points to a block that is freed
void *in_tcache, *in_fastbin, *in_unsorted, *in_small, *in_large, *mapped, *aligned, *used;
void *held_by_stack, *volatile nowhere;
__thread char *mine;      // a block that only a thread-local holds
char **many;
long many_count;
size_t info[10];          // the members of struct mallinfo2 (mallinfo(3))
size_t usable_of_used;
static pthread_barrier_t barrier;

static struct item *make(long key, const char *name)
{
	struct item *item = malloc(sizeof(*item));

	item->key = key;
	item->name = strdup(name);
	item->next = NULL;
	return item;
}

static void fill_bins(void)
{
	void *seven[7], *others[4], *guards[4];

	for (int i = 0; i < 7; i++)
		seven[i] = malloc(40);
	in_fastbin = malloc(40);
	for (int i = 0; i < 7; i++)
		free(seven[i]);
	in_tcache = seven[6];
	for (int i = 0; i < 3; i++) {
		others[i] = malloc(i == 0 ? 1300 : i == 1 ? 5000 : 1800);
		guards[i] = malloc(24);
	}
	in_small = (char *)others[0];
	in_large = others[1];
	void *cut = malloc(2000);
	guards[3] = malloc(24);
	free(in_large);
	free(cut);
	free(malloc(100000)); // sorts what is in the unsorted bin
	in_small = NULL;
	for (int i = 0; i < 7; i++)
		seven[i] = malloc(200);
	in_small = malloc(200);
	void *guard = malloc(24);
	for (int i = 0; i < 7; i++)
		free(seven[i]);
	free(in_small);
	free(malloc(100000));
	in_unsorted = others[2];
	free(in_unsorted);
	free(in_fastbin); // the cache of that size is full
	nowhere = guard;
	(void)guards;
}

static void *worker(void *number)
{
	mine = malloc(100 + (size_t)(uintptr_t)number);
	free(malloc(64));
	for (int i = 0; i < 20; i++)
		many[many_count + 20 * (long)(uintptr_t)number + i] = malloc(3000);
	pthread_barrier_wait(&barrier);
	pause();
	return NULL;
}

static void threads(long count)
{
	pthread_t thread;

	many = calloc((size_t)(count * 20), sizeof(*many));
	pthread_barrier_init(&barrier, NULL, (unsigned int)count + 1);
	for (long i = 0; i < count; i++)
		pthread_create(&thread, NULL, worker, (void *)i);
	pthread_barrier_wait(&barrier);
}

static void *grower(void *unused) // more than one heap of 64 MiB holds
{
	(void)unused;
	for (long i = 0; i < many_count; i++)
		many[i] = malloc(100000);
	pthread_barrier_wait(&barrier);
	pause();
	return NULL;
}

static void grow(void)
{
	pthread_t thread;

	many_count = 800;
	many = calloc((size_t)many_count, sizeof(*many));
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, grower, NULL);
	pthread_barrier_wait(&barrier);
}

void move_break(void) // somebody else moves the break, and malloc goes on behind that
{
	many_count = 16;
	many = calloc((size_t)many_count, sizeof(*many));
	for (long i = 0; i < many_count; i++) {
		if (i == 5 || i == 11)
			sbrk(12344);
		many[i] = malloc(60000);
	}
}

static void fill(long count) // `count` blocks, each fourth of them free
{
	many = malloc((size_t)count * sizeof(*many));
	many_count = count;
	for (long i = 0; i < count; i++)
		many[i] = malloc((size_t)(24 + i % 7 * 16));
	for (long i = 0; i < count; i += 4) {
		free(many[i]);
		many[i] = NULL;
	}
}

static void damage(const char *what)
{
	uint64_t *words = in_tcache, *next;

	if (!strcmp(what, "overflow")) { // into the size of the block behind `input->text`
		memset(input->text, 'A', 32);
	} else if (!strcmp(what, "off-by-one")) {
		input->text[24] = 0;
	} else if (!strcmp(what, "use-after-free")) {
		words[0] = 0x4141414141414141;
		words[1] = 0x4242424242424242;
	} else if (!strcmp(what, "double-free")) { // as a double free of the cache leaves it, unseen
		void *a = malloc(904), *b = malloc(904);
		free(a);
		free(b);
		((uint64_t *)a)[1] = 0; // the key that malloc looks for
		free(a);
	} else if (!strcmp(what, "top")) {
		next = malloc(8000); // the last block before it
		next[8008 / 8] = 0xfffffffffffffff1;
	} else if (!strcmp(what, "bin")) {
		words = in_unsorted;
		words[1] = (uint64_t)(uintptr_t)&cache;
	} else if (!strcmp(what, "loop")) {
		words = in_large;
		words[0] = (uint64_t)(uintptr_t)in_large - 16;
	} else if (!strcmp(what, "prev-size")) { // at the end of a free block
		words = in_large;
		words[(words[-1] & ~7ul) / 8 - 2] = 0x1230;
	}
}

void spoil(void) // a call that does the damage itself
{
	damage("overflow");
}

static void ask_malloc(void)
{
#if __GLIBC_PREREQ(2, 33)
	struct mallinfo2 said = mallinfo2();
#else
	struct mallinfo said = mallinfo();
#endif
	size_t members[] = {said.arena, said.ordblks, said.smblks, said.hblks, said.hblkhd,
		said.usmblks, said.fsmblks, said.uordblks, said.fordblks, said.keepcost};

	memcpy(info, members, sizeof(info));
}

static void finish(const char *what, char *local)
{
	void *volatile kept = local;

	held_by_stack = NULL;
	usable_of_used = malloc_usable_size(used);
	ask_malloc();
	damage(what);
	strcpy(local, "only a local leads here");
	(void)kept;
	abort();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	char *local = malloc(333);
	used = malloc(123);
	mine = malloc(77);
	for (int i = 0; i < 4; i++)
		cache.items[cache.count++] = make(i, "some name or other");
	cache.items[2]->next = make(9, "one behind another");
	input = malloc(sizeof(*input));
	input->len = 24;
	input->text = malloc(24);
	cache.items[3]->next = make(10, "behind the text");
	mapped = malloc(1 << 20);
	aligned = aligned_alloc(8192, 3 << 20);
	stale = make(11, "freed in a moment");
	cache.items[4] = stale;
	if (!strcmp(what, "threads"))
		threads(argc > 2 ? atol(argv[2]) : 3);
	if (!strcmp(what, "grow"))
		grow();
	if (!strcmp(what, "break"))
		move_break();
	if (!strcmp(what, "many"))
		fill(argc > 2 ? atol(argv[2]) : 1000000);
	else
		fill_bins();
	free(stale);
	finish(what, local);
}
