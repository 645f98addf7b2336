/* newheap.c - has asked malloc for nothing when it aborts: a call makes the heap. */
#include <stdlib.h>

char *mine;
__thread long own = 1;

long set_own(long value)
{
	return own = value;
}

int begin(long bytes)
{
	mine = malloc((size_t)bytes);
	mine[0] = 7;
	return 1;
}

int main(void)
{
	abort();
}
