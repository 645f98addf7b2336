// Calls whose first writes are made far from the program's own line, or at it; and stale frames below.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#define OWN extern "C" __attribute__((noinline, used))

extern "C" { // so that their names are plain
alignas(4096) char target[4096];
alignas(4096) char stream[3 * 4096];
alignas(4096) std::map<std::string, int> sizes;
alignas(4096) std::vector<std::string> words{"one", "two", "three", "four", "five", "six", "seven"};
alignas(4096) int compared[1024];
alignas(4096) long numbers[64];
alignas(4096) char behind;
}

// Touches much stack, so that what it leaves there looks like frames.
OWN int deep(int n)
{
	char room[200];

	memset(room, n, sizeof room);
	return n ? deep(n - 1) + room[3] : room[7];
}

OWN int leaf(int n)
{
	target[n] = (char)(n + 1);
	return n;
}

OWN int middle(int n)
{
	return leaf(n) + 1;
}

OWN int outer(int n)
{
	return middle(n) + 2;
}

// Through the linker, which has not bound it yet.
OWN int through_plt(int n)
{
	return n + (int)strtol("12", nullptr, 10);
}

OWN int print(int n)
{
	return printf("%d %s %.3f\n", n, "words", n / 3.0);
}

OWN int insert(int n)
{
	sizes["a key that is too long to be kept in place"] = n;
	return (int)sizes.size();
}

OWN int sort_words(int n)
{
	std::sort(words.begin(), words.end(), std::greater<std::string>());
	return n;
}

OWN int by_number(const void *left, const void *right)
{
	compared[0]++;
	return *(const long *)left < *(const long *)right ? -1 : 1;
}

OWN int sort_numbers(int n)
{
	qsort(numbers, 64, sizeof numbers[0], by_number);
	return n;
}

// A frame whose size is not known before it is made.
OWN int changing(int n)
{
	char *room = (char *)__builtin_alloca((size_t)n * 16 + 16);

	memset(room, 1, (size_t)n * 16);
	return leaf(room[0] - 1) + n;
}

// The frame's room was deep's before.
OWN int roomy(int n)
{
	char room[3000];

	__asm__ volatile("" : : "r"(room) : "memory");
	target[1] = (char)n;
	return target[1];
}

OWN int after_deep(int n)
{
	deep(20);
	return roomy(n) + 1;
}

OWN void handler(int)
{
	leaf(2);
}

OWN int signalled(int n)
{
	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	return n;
}

OWN int callback(int n, int (*to)(int))
{
	return to(n) + 1;
}

OWN int indirect(int n)
{
	int (*volatile to)(int) = leaf;

	return callback(n, to) + 1;
}

int main()
{
	for (int i = 0; i < 64; i++)
		numbers[i] = i * 37 % 64;
	setvbuf(stdout, stream, _IOFBF, sizeof stream);
	deep(100);
	abort();
}
