// One of each: functions that a debugger's user might call in a core.
// usage: zoo PLUGIN abort|segv|pause
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct point {
	int x, y;
};

struct shape {
	char name[16];
	struct point corner[3];
	double area;
	unsigned flags : 3;
};

enum colour { RED, GREEN, BLUE };

struct shape triangle = {"triangle", {{1, 2}, {3, 4}, {5, 6}}, 2.5, 5};
enum colour favourite = GREEN;
static int hidden = 77;
int grid[3][4];
char big_bss[1 << 20];
const char *greeting = "hello, core";
volatile unsigned long spins;
__thread int tls_here = 11;
extern __thread long lib_tls;
extern long lib_bump(void);
long (*plugin_bump)(void);
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static sem_t ready;

int mix(int number, double real, const char *text)
{
	printf("mix %d %.2f %s\n", number, real, text);
	fflush(stdout);
	return number + (int)strlen(text);
}

double half(double x)
{
	return x / 2;
}

float add_float(float a, float b)
{
	return a + b;
}

long double long_half(long double x)
{
	return x / 2;
}

struct point mirror(struct point p)
{
	return (struct point){p.y, p.x};
}

struct shape grow(struct shape s, int by)
{
	s.area += by;
	for (int i = 0; i < 3; i++)
		s.corner[i].x += by;
	return s;
}

int set_grid(int row, int column, int value)
{
	int old = grid[row][column];

	grid[row][column] = value;
	hidden++;
	return old;
}

int buffered(const char *text) // stays in stdio's buffer
{
	return printf("%s", text);
}

int shout(const char *text)
{
	return (int)write(1, text, strlen(text));
}

int complain(const char *text)
{
	return (int)write(2, text, strlen(text));
}

long depth(int n) // 4 KiB of stack each
{
	volatile char pad[4096];

	pad[0] = (char)n;
	return n == 0 ? 0 : 1 + depth(n - 1) + (pad[0] - (char)n);
}

long big(size_t length_bytes)
{
	unsigned char *block = malloc(length_bytes);
	long sum = 0;

	if (!block)
		return -1;
	memset(block, 3, length_bytes);
	for (size_t i = 0; i < length_bytes; i += 4096)
		sum += block[i];
	free(block);
	return sum;
}

long churn(int count) // many small blocks: the heap grows by brk
{
	void *last = NULL;
	long sum = 0;

	for (int i = 0; i < count; i++) {
		void **block = malloc(1000);

		*block = last;
		last = block;
		sum++;
	}
	while (last) {
		void *next = *(void **)last;

		free(last);
		last = next;
	}
	return sum;
}

void *map_pages(int count)
{
	char *block = mmap(NULL, (size_t)count * 4096, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < count; i++)
		block[i * 4096] = (char)(i + 1);
	return block;
}

int dirty_bss(int pages)
{
	for (int i = 0; i < pages; i++)
		big_bss[i * 4096] = 1;
	return pages;
}

int clocks(void) // 1 when every clock answers with something plausible
{
	struct timespec a, b;
	struct timeval tv;

	if (clock_gettime(CLOCK_MONOTONIC, &a) || clock_gettime(CLOCK_REALTIME, &b))
		return -1;
	if (gettimeofday(&tv, NULL) || time(NULL) < 1000000000)
		return -2;
	return (a.tv_sec > 0 || a.tv_nsec > 0) && b.tv_sec > 1000000000 && tv.tv_sec > 1000000000;
}

int crash(int *where)
{
	*where = 1;
	return 0;
}

int crash_after_dirt(void)
{
	grid[2][3] = 4242;
	return crash((int *)8);
}

void leave(int code)
{
	exit(code);
}

void leave_at_once(int code)
{
	_exit(code);
}

void give_up(void)
{
	abort();
}

int split(void) // -errno where fork is refused
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	if (child < 0)
		return -errno;
	waitpid(child, NULL, 0);
	return child;
}

int kill_parent(void)
{
	return kill(getppid(), SIGTERM) ? -errno : 0;
}

pid_t who(void)
{
	return getpid();
}

int forever(void)
{
	for (;;)
		spins++;
	return 0;
}

int take_held_lock(void) // a worker owns it
{
	return pthread_mutex_lock(&held);
}

int sleep_long(void)
{
	return (int)sleep(100000);
}

long bump_tls(void)
{
	return ++tls_here + lib_bump() + plugin_bump();
}

int steps(int n)
{
	int total = 0;

	for (int i = 1; i <= n; i++)
		total += i;
	total *= 2;
	return total;
}

static void *worker(void *unused)
{
	(void)unused;
	tls_here = 22;
	lib_tls = 600;
	plugin_bump();
	pthread_mutex_lock(&held);
	sem_post(&ready);
	for (;;)
		pause();
	return NULL;
}

static void *bystander(void *unused) // never touches the plugin's thread-locals
{
	(void)unused;
	tls_here = 33;
	sem_post(&ready);
	for (;;)
		pause();
	return NULL;
}

__attribute__((noinline)) void checkpoint(int depth_left)
{
	int local = depth_left * 10;

	if (depth_left) {
		checkpoint(depth_left - 1);
	} else {
		puts("ready");
		fflush(stdout);
	}
	__asm__ volatile("" : : "r"(local) : "memory");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *plugin;

	if (argc < 3)
		return 2;
	plugin = dlopen(argv[1], RTLD_NOW);
	if (!plugin)
		return 3;
	*(void **)&plugin_bump = dlsym(plugin, "plugin_bump");
	sem_init(&ready, 0, 0);
	pthread_create(&thread, NULL, worker, NULL);
	sem_wait(&ready);
	pthread_create(&thread, NULL, bystander, NULL);
	sem_wait(&ready);
	for (int i = 0; i < 12; i++)
		grid[i / 4][i % 4] = i;
	free(malloc(100));
	checkpoint(3);
	if (!strcmp(argv[2], "abort"))
		abort();
	if (!strcmp(argv[2], "segv"))
		crash((int *)16);
	for (;;)
		pause();
}
