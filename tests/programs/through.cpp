// Writes through libraries and the compiler's headers: who wrote is the line here that led there.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define OWN __attribute__((noinline, used))

alignas(4096) std::mutex lock;
alignas(4096) int count = 1;
alignas(4096) char copied[4096] = "before";
alignas(4096) std::vector<int> numbers{5, 3, 9, 1, 7};
alignas(4096) std::string text("before, and too long to be kept in place");
alignas(4096) std::unique_ptr<int> owned(new int(3));
alignas(4096) long behind = 1;

template <typename T> static inline void bump(T &what)
{
	what += 1;
}

OWN int locked()
{
	std::lock_guard<std::mutex> hold(lock);
	return ++count;
}

OWN int copy(const char *from)
{
	memcpy(copied, from, strlen(from));
	return copied[0];
}

OWN int sort()
{
	std::sort(numbers.begin(), numbers.end(), [](int a, int b) {
		++count;
		return a < b;
	});
	return numbers[0];
}

OWN int push(int number)
{
	numbers.push_back(number);
	return (int)numbers.size();
}

OWN int assign(const char *what)
{
	text.assign(what);
	return (int)text.size();
}

OWN int swap()
{
	int other = 8;
	std::swap(count, other);
	return count + (int)behind;
}

OWN int own()
{
	bump(behind);
	return (int)behind;
}

OWN int reset()
{
	owned.reset(new int(4));
	return *owned;
}

OWN int chain(int number)
{
	return push(number) + 1;
}

int main()
{
	abort();
}
