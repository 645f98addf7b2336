// What a call does for the first time: a library's thread-locals, memory of its own; many changes.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct pair {
	int left, right;
};

int (*plugin_set)(int);
int *mapped;
struct pair *pairs;
int row[600];
char *word;
struct pair both;

int first_use(int n)
{
	return plugin_set(n);
}

int put(int n)
{
	mapped[2000] = n;
	pairs[3].right = n;
	return n;
}

int fill(int n)
{
	for (int i = 0; i < 600; i++)
		row[i] = n + i;
	return n;
}

int spell(int n)
{
	word = strdup("seven");
	return n;
}

unsigned char text[9000];
int under__scored;

int overwrite(int n)
{
	memset(text, n, sizeof text);
	under__scored = n;
	return n;
}

long scatter(long megabytes)
{
	long size = megabytes << 20;
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (long i = 0; i < size; i += 8)
		*(long *)(at + i) = i * 0x9e3779b97f4a7c15ul;
	return megabytes;
}

int crash__here(int n)
{
	return *(volatile int *)(long)n;
}

int settle(int n)
{
	both.left = n;
	return n;
}

int *made;

int make(int n)
{
	made = malloc(24);
	*made = n;
	return n;
}

int main(int argc, char **argv)
{
	int protection = PROT_READ | PROT_WRITE;
	void *plugin;

	if (argc > 2)
		abort(); // before anything was allocated
	plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!plugin)
		return 2;
	*(void **)&plugin_set = dlsym(plugin, "plugin_set");
	mapped = mmap(NULL, 1 << 16, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); // so that they stay apart
	pairs = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pairs, 1, 64);
	word = malloc(16);
	memset(word, 'x', 16);
	free(word); // what comes next holds leftovers
	word = NULL;
	abort();
}
