/* Prints what a terminal would obey, in one piece and in several, and is named by it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char title[] = "\033]0;OWNED\007\033]52;c;aGk=\007";

/* The number of pieces, so that every one of them was taken. */
int pieces(const char *text, int length, int fd)
{
	int count = 0;

	for (; count < length; count++)
		if (write(fd, text + count, 1) != 1)
			return -1;
	return count;
}

int at_once(int fd)
{
	return (int)write(fd, title, sizeof(title) - 1);
}

int in_pieces(int fd)
{
	static const char text[] = "\033]0;OWNED\007 \033[1;31mred\033[m \302\233m \342\202\254 \342\200\256 end\r\n";

	return pieces(text, sizeof(text) - 1, fd);
}

int coloured(void)
{
	return (int)write(1, "\033[32mgreen", 10);
}

int half(void)
{
	return (int)write(1, "half \033[3", 8);
}

int eight_bit(void)
{
	return (int)write(1, "\2332J a\bb c\rd \377\n", 14);
}

/* A sequence of which the program still holds the end. */
int buffered(void)
{
	int wrote;

	setvbuf(stdout, NULL, _IOFBF, 4096);
	wrote = (int)write(1, "euro \342\202", 7);
	return wrote + printf("\254 \033[31mred\033]0;OWNED\007");
}

int dialog(void)
{
	int fd = open("/dev/tty", O_WRONLY);

	return fd < 0 ? -1 : at_once(fd);
}

long touched;

int touch(void)
{
	return (int)(touched += 7);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOFBF, 4096);
	prctl(PR_SET_NAME, "a\033]0;NAME\007");
	abort();
}
