/* policy.c: functions that ask the kernel for things, wait, or do not come back. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The test writes a system call's number and arguments here, and what they point to. */
long request[8];
char arena[1 << 16] __attribute__((aligned(4096))) = "recorded";

struct queue {
	int length;
	pthread_mutex_t lock;
	pthread_cond_t filled;
	pthread_rwlock_t table;
	sem_t slots;
} queue = {0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER, {{0}}};
struct queue *q = &queue;
pthread_rwlock_t *table = &queue.table;
char *block; /* four pages full of sixes, and four empty ones */
pthread_t holder;
static pthread_mutex_t meeting = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static sem_t ready;
static sigjmp_buf outside;
int counter = 41;
volatile int caught;

static inline long call6(long nr, long a, long b, long c, long d, long e, long f)
{
#ifdef __aarch64__
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
#else
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#endif
}

long raw(void)
{
	return call6(request[0], request[1], request[2], request[3], request[4], request[5], request[6]);
}

long raw_often(long times) /* the sum, so that every result counts */
{
	long sum = 0;

	while (times--)
		sum += raw();
	return sum;
}

long raw_32(void) /* the same number through the 32-bit gate */
{
	long result = -1;

#ifdef __x86_64__
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "0"(request[0]), "b"(request[1]), "c"(request[2]), "d"(request[3])
			 : "memory", "r8", "r9", "r10", "r11");
#endif
	return (int)result;
}

long vsyscall_time(void)
{
	long (*entry)(long *) = (long (*)(long *))0xffffffffff600400;

	return entry(NULL);
}

long nothing(void)
{
	return 7;
}

/* Waiting. */

int lock_queue(void)
{
	pthread_mutex_lock(&q->lock);
	q->length++;
	return pthread_mutex_unlock(&q->lock);
}

int read_table(void)
{
	pthread_rwlock_rdlock(&q->table);
	return pthread_rwlock_unlock(&q->table);
}

int lock_twice(void)
{
	pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&own);
	return pthread_mutex_lock(&own);
}

int wait_filled(void)
{
	pthread_mutex_lock(&meeting);
	return pthread_cond_wait(&never, &meeting);
}

int wait_filled_a_while(void) /* 110: ETIMEDOUT */
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 3600;
	pthread_mutex_lock(&meeting);
	int rc = pthread_cond_timedwait(&never, &meeting, &until);
	pthread_mutex_unlock(&meeting);
	return rc;
}

int take_slot(void)
{
	return sem_wait(&q->slots);
}

int join_holder(void)
{
	return pthread_join(holder, NULL);
}

int poll_nothing(void)
{
	return poll(NULL, 0, -1);
}

int wait_for_signal(void)
{
	return pause();
}

int wait_blocked_signal(void) /* SIGUSR1: it is pending already */
{
	sigset_t set;
	int number = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	sigwait(&set, &number);
	return number;
}

long slept(unsigned seconds) /* by the clock */
{
	time_t before = time(NULL);

	sleep(seconds);
	return time(NULL) - before;
}

/* Ends. */

int jump_out(int value)
{
	counter++;
	siglongjmp(outside, value);
}

int jump_inside(int value)
{
	jmp_buf here;
	int got = setjmp(here);

	if (!got)
		longjmp(here, value);
	return got;
}

long recurse(long depth)
{
	volatile char pad[200];

	pad[0] = (char)depth;
	return depth < 0 ? 0 : recurse(depth + 1) + pad[0];
}

static void on_signal(int number)
{
	caught = number;
}

int handle_signal(void)
{
	signal(SIGUSR2, on_signal);
	raise(SIGUSR2);
	return caught;
}

int handle_on_other_stack(void)
{
	static char room[65536];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};

	sigaltstack(&stack, NULL);
	sigaction(SIGUSR2, &action, NULL);
	raise(SIGUSR2);
	return caught;
}

/* Files. */

long read_file(void) /* the path in `arena`: the bytes, which replace it */
{
	int fd = open(arena, O_RDONLY);
	long got = fd < 0 ? -errno : read(fd, arena, sizeof(arena) - 1);

	if (got >= 0)
		arena[got] = 0;
	close(fd);
	return got;
}

long holder_is_there(void) /* as glibc asks */
{
	union sigval none = {0};

	return pthread_kill(holder, 0) * 1000 + pthread_sigqueue(holder, 0, none);
}

long map_file(void) /* the sum of the file's bytes, through a shared mapping */
{
	int fd = open(arena, O_RDONLY);
	long length = lseek(fd, 0, SEEK_END), sum = 0;
	unsigned char *at = mmap(NULL, (size_t)length, PROT_READ, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	for (long i = 0; i < length; i++)
		sum += at[i];
	close(fd);
	munmap(at, (size_t)length);
	return sum;
}

int print_text(void)
{
	printf("printed %d\n", counter);
	fflush(stdout);
	return (int)write(2, "and an error\n", 13);
}

long allocate(long length)
{
	char *block = malloc((size_t)length);

	if (!block)
		return -1;
	memset(block, 1, (size_t)length);
	return block[length - 1];
}

/* New memory, each page read before it is written. */
long reread(long length)
{
	volatile char *block = malloc((size_t)length);
	long sum = 1;

	if (!block)
		return -1;
	for (long i = 0; i < length; i += 4096)
		sum += block[i];
	for (long i = 0; i < length; i += 4096)
		block[i] = 1;
	return sum;
}

static void *hold(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&queue.lock);
	pthread_rwlock_wrlock(&queue.table);
	pthread_mutex_lock(&meeting);
	sem_post(&ready);
	for (;;)
		pthread_cond_wait(&never, &meeting);
	return NULL;
}

int main(void)
{
	sem_init(&ready, 0, 0);
	sem_init(&queue.slots, 0, 0);
	pthread_create(&holder, NULL, hold, NULL);
	sem_wait(&ready);
	pthread_mutex_lock(&meeting); /* `hold` has let go of it: it waits */
	pthread_mutex_unlock(&meeting);
	free(malloc(100));
	block = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(block, 6, 4 * 4096);
	if (sigsetjmp(outside, 0)) {
		for (;;)
			counter++;
	}
	abort();
}
