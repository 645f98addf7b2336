// Functions that take strings: gdb calls malloc for these before it calls the function.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FREE 5

char *keep, *out, *block, *label;
int numbers[4];

int touch(const char *text) // a byte on the page that malloc's own words are on
{
	keep[0]++;
	return (int)strlen(text);
}

int take(const char *text)
{
	out = malloc(100);
	strcpy(out, "taken");
	return (int)strlen(text);
}

int take_same(const char *text) // of the size of a text of forty bytes
{
	out = malloc(40);
	return (int)strlen(text);
}

int drop(const char *text) // likewise
{
	free(block);
	return (int)strlen(text);
}

int drop_and_take(const char *text)
{
	free(block);
	out = malloc(40);
	return (int)strlen(text);
}

int grow(const char *text)
{
	block = realloc(block, 200);
	return (int)strlen(text);
}

int drop_text(char *text)
{
	free(text);
	return 0;
}

int edit(char *text)
{
	text[0] = '#';
	text[strlen(text) - 1] = '#';
	return text[0];
}

int take_two(const char *text, const char *more)
{
	out = malloc(100);
	return (int)(strlen(text) + strlen(more));
}

char *pass(char *text)
{
	keep[0]++;
	return text;
}

char *take_and_pass(char *text)
{
	out = malloc(100);
	return text;
}

int sum(const char *bytes, int count)
{
	int all = 0;

	out = malloc(100);
	for (int i = 0; i < count; i++)
		all += bytes[i];
	return all;
}

char *spell(int n) // the linker writes to that page first, to bind snprintf
{
	static char line[100];

	snprintf(line, sizeof(line), "n=%d", n);
	return line;
}

int main(void)
{
	char *free_ones[FREE], *other[FREE];

	keep = malloc(40);
	block = malloc(40);
	for (int i = 0; i < FREE; i++) {
		free_ones[i] = malloc(40);
		other[i] = malloc(100);
	}
	malloc(20000);
	for (int i = 0; i < FREE; i++) {
		free(free_ones[i]);
		free(other[i]);
	}
	keep[0] = 1;
	strcpy(block, "block");
	abort();
}
