// Memory that moves, goes, and comes anew under an old address; and as many pages as one likes.
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096L
#define MANY 40000L

char *block; // three pages, of which page i holds "block i"
char *second;
char *area; // pages that nobody has touched
int last = 7;
char *label;

static char *make(const char *what)
{
	char *made = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 3; i++) {
		strcpy(made + i * PAGE, what);
		made[i * PAGE + 6] = (char)('0' + i);
	}
	return made;
}

int move(void) // elsewhere, with one byte changed
{
	mmap(block + 3 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	block = mremap(block, 3 * PAGE, 12 * PAGE, MREMAP_MAYMOVE);
	block[PAGE] = 'X';
	return block[2 * PAGE + 6];
}

int move_twice(void)
{
	move();
	mmap(block + 12 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	block = mremap(block, 12 * PAGE, 20 * PAGE, MREMAP_MAYMOVE);
	return block[2 * PAGE + 6];
}

int drop(void)
{
	munmap(second, 3 * PAGE);
	second = block;
	return 0;
}

int renew(void) // other memory at the same address
{
	munmap(block, 3 * PAGE);
	mmap(block, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	strcpy(block, "anew");
	return 0;
}

long dirty(long pages)
{
	for (long i = 0; i < pages; i++)
		area[i * PAGE] = 1;
	last++;
	return pages;
}

int note(const char *text)
{
	label = strdup(text);
	return (int)strlen(label);
}

int main(void)
{
	block = make("block ?");
	second = make("other ?");
	label = strdup("none");
	area = mmap(NULL, MANY * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	abort();
}
