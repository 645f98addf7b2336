// Crashes in itself.  What its functions need: nothing but the program, the dynamic linker and libc, memory
// that was kept out of the core, a file that was cut short.  argv[1]: a file of two pages.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(LIBRARY) || defined(PRELOADED) // tables longer than what a core has of them, one page
__asm__(".pushsection .text\n"
	".altmacro\n"
	".macro filler n\n"
	".globl filler_\\n\n"
	".type filler_\\n, %function\n"
	"filler_\\n:\n"
	".endm\n"
	".set i, 0\n"
	".rept 16000\n"
	"filler %i\n"
	".set i, i + 1\n"
	".endr\n"
	".noaltmacro\n"
	".popsection");
#endif

#ifdef LIBRARY // libchoice.so: a function that is chosen when it is bound, and one in two versions

static int doubled(int x)
{
	return 2 * x;
}

static int (*choose(void))(int)
{
	return doubled;
}

int twice(int x) __attribute__((ifunc("choose")));

int measured(const char *text)
{
	return (int)strlen(text);
}

int first_answer(void)
{
	return 1;
}

int second_answer(void)
{
	return 2;
}

__asm__(".symver first_answer, answer@V1");
__asm__(".symver second_answer, answer@@V2");

#elif defined(PRELOADED) // libbefore.so: strlen in libc's place, without a version

size_t strlen(const char *text)
{
	return text[0] == '\0' ? 0 : 70 + (size_t)abs(text[1]) % 7;
}

#elif defined(OPENED) // libopened.so: what a call loads

int opened_count = 4;
char opened_room[3 * 4096];

int opened_step(int by)
{
	opened_room[sizeof(opened_room) - 1] = (char)by;
	return opened_count += by;
}

#else

#define PAGE 4096

int twice(int x);
int answer(void);
int old_answer(void);
__asm__(".symver old_answer, answer@V1");

int numbers[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
char text[] = "some text", words[64] = "some text";
unsigned char *hidden;  // written, and not dumped
unsigned char *fresh;   // never touched
unsigned char *cut;     // its second page is past the end of its file
unsigned char half[2 * PAGE] __attribute__((aligned(PAGE)));  // .bss; its second page is not dumped

int sum(void)
{
	int total = 0;

	for (int i = 0; i < 10; i++)
		total += numbers[i];
	return total;
}

int say(int x)
{
	printf("x is %d\n", x);
	fflush(stdout);
	return x + 1;
}

int length(void)
{
	return (int)strlen(text);
}

int both(void)
{
	return abs(-1) + (int)strlen(strcpy(words, text)) + memcmp(words, text, sizeof(text));
}

int hidden_sum(void)
{
	int total = 0;

	for (int i = 0; i < PAGE; i++)
		total += hidden[i];
	return total;
}

int fresh_sum(void)
{
	int total = 0;

	for (int i = 0; i < 2 * PAGE; i++)
		total += fresh[i];
	return total;
}

int half_sum(void)
{
	return half[0] + half[PAGE];
}

int cut_at(int page)
{
	return cut[page * PAGE];
}

int chosen(void)
{
	return twice(21);
}

int versions(void)
{
	return 10 * old_answer() + answer();
}

int load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	int (*step)(int) = library ? (int (*)(int))dlsym(library, "opened_step") : NULL;

	return step ? step(3) : -1;
}

static void crash(volatile int *where)
{
	*where = sum();
}

int main(int argc, char **argv)
{
	hidden = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(hidden, 1, PAGE);
	madvise(hidden, PAGE, MADV_DONTDUMP);
	fresh = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	half[0] = half[PAGE] = 3;
	madvise(half + PAGE, PAGE, MADV_DONTDUMP);
	if (argc > 1) {
		int fd = open(argv[1], O_RDWR);
		cut = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
		if (ftruncate(fd, 100) < 0)
			return 1;
		close(fd);
	}
	crash(NULL);
	return 0;
}

#endif
