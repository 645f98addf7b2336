/* Lets the kernel write into its memory past the page tables: io_uring, a registered (pinned) buffer,
 * and requests that a worker of the kernel carries out. */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

char *buffer;
static int ring;
static struct io_uring_params p;
static struct io_uring_sqe *entries;
static char *requests, *answers;

static unsigned *at(char *base, unsigned offset)
{
	return (unsigned *)(void *)(base + offset);
}

/* Reads a page from `fd` into the registered buffer, by a worker of the kernel. */
static void read_fixed(int fd)
{
	unsigned tail = *at(requests, p.sq_off.tail), slot = tail & *at(requests, p.sq_off.ring_mask);

	memset(&entries[slot], 0, sizeof(entries[slot]));
	entries[slot].opcode = IORING_OP_READ_FIXED;
	entries[slot].flags = IOSQE_ASYNC;
	entries[slot].fd = fd;
	entries[slot].addr = (unsigned long)buffer;
	entries[slot].len = 4096;
	entries[slot].off = ~0ull;
	at(requests, p.sq_off.array)[slot] = slot;
	__atomic_store_n(at(requests, p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		exit(4);
	++*at(answers, p.cq_off.head);
}

__attribute__((noinline)) void filled(int number)
{
	__asm__ volatile("" : : "r"(number) : "memory");
}

int main(void)
{
	int ends[2];
	char page[4096];
	struct iovec registered;

	buffer = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(buffer, 'z', 4 * 4096);
	registered = (struct iovec){buffer, 4096};
	ring = (int)syscall(SYS_io_uring_setup, 4, &p);
	if (ring < 0 || pipe(ends))
		return 77; /* none here */
	requests = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
			IORING_OFF_SQ_RING);
	answers = mmap(NULL, p.cq_off.cqes + p.cq_entries * 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		       IORING_OFF_CQ_RING);
	entries = mmap(NULL, p.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		       IORING_OFF_SQES);
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &registered, 1))
		return 77;
	filled(0);
	for (int i = 1; i < 5; i++) {
		memset(page, 'a' + i, sizeof(page));
		if (write(ends[1], page, sizeof(page)) != (ssize_t)sizeof(page))
			return 3;
		read_fixed(ends[0]);
		filled(i);
	}
	return 0;
}
