/* steps.c: plays a list of accesses and system calls that the debugger has written into it.  Nothing
 * else is touched meanwhile but its own stack page, so what a list does to memory is known exactly. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define DATA_PAGES 6
#define ANON_PAGES 12

enum { END, READ, WRITE, CALL };

struct step {
	unsigned long what, number, a, b, c, d, e;
};

/* Each on pages of its own. */
__attribute__((aligned(PAGE))) struct step list[3 * PAGE / sizeof(struct step)];
__attribute__((aligned(PAGE))) char data[DATA_PAGES * PAGE] = {1};
__attribute__((aligned(PAGE))) char zeros[DATA_PAGES * PAGE];
__attribute__((aligned(PAGE))) char behind[PAGE];
char *anon; /* recorded anonymous memory */

static long call(const struct step *s)
{
#ifdef __aarch64__
	register unsigned long x8 __asm__("x8") = s->number, x0 __asm__("x0") = s->a, x1 __asm__("x1") = s->b;
	register unsigned long x2 __asm__("x2") = s->c, x3 __asm__("x3") = s->d, x4 __asm__("x4") = s->e;
	register unsigned long x5 __asm__("x5") = 0;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return (long)x0;
#else
	register unsigned long r10 __asm__("r10") = s->d, r8 __asm__("r8") = s->e;
	register unsigned long r9 __asm__("r9") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "0"(s->number), "D"(s->a), "S"(s->b), "d"(s->c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#endif
}

/* What was read and what the calls returned, folded into one number. */
unsigned long play(const struct step *s)
{
	unsigned long sum = 1;

	for (;; s++) {
		switch (s->what) {
		case READ:
			sum = sum * 31 + *(volatile unsigned char *)s->a;
			break;
		case WRITE:
			*(volatile unsigned char *)s->a = (unsigned char)s->b;
			break;
		case CALL:
			sum = sum * 31 + (unsigned long)call(s);
			break;
		default:
			return sum;
		}
	}
}

int main(void)
{
	anon = mmap((void *)0x150000000000, ANON_PAGES * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	for (int i = 0; i < ANON_PAGES; i += 2) /* every other page was never touched */
		memset(anon + i * PAGE, 'a' + i, PAGE);
	for (int i = 0; i < DATA_PAGES; i++)
		data[i * PAGE] = (char)(i + 1);
	list[0].what = behind[0] = END;
	abort();
}
