// Containers of the C++ library; each function notes what it writes: "0xADDRESS SIZE NAME".
#include <array>
#include <bitset>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

struct Shape {
	virtual ~Shape() = default;
	int id = 1;
};

struct Tagged {
	virtual ~Tagged() = default;
	long tag = 5;
};

struct Square : Shape {
	double side = 2;
};

struct Sticker : Shape, Tagged {
	short price = 3;
};

struct Base {
	int shared = 1, hidden = 2;
};

struct Left : virtual Base {
	int left = 3;
};

struct Derived : Left {
	int hidden = 4;
	static int instances;
};

int Derived::instances = 9;

template <typename T> struct Box {
	T inside;
	struct {
		T nameless;
	};
	static T total;
};

template <typename T> T Box<T>::total = 100;

namespace space
{
int visible = 1;
namespace
{
int invisible = 2;
struct {
	int a, b;
} anonymous;
} // namespace
thread_local long own = 7;
} // namespace space

struct Database {
	std::vector<std::string> names = {"x", "yy"};
	std::map<int, std::vector<int>> rows = {{1, {1, 2}}};
	Box<int> box = {3, {4}};
};

std::map<std::string, int> ages = {{"ada", 36}, {"alan", 41}, {"grace", 85}};
std::vector<int> primes = {2, 3, 5, 7, 11};
std::vector<Box<short>> boxes(6);
std::string title = "a string that is longer than the small buffer of the class", brief = "abc";
std::unordered_map<int, std::string> words = {{1, "one"}, {2, "two"}};
std::unique_ptr<Square> owned(new Square);
std::shared_ptr<Square> shared = std::make_shared<Square>();
std::vector<bool> marks{true, false, true};
std::bitset<10> mask{5};
std::list<int> chain = {1, 2, 3};
std::set<int> bag = {5, 6, 7};
std::deque<int> queue = {1, 2, 3};
std::pair<int, std::string> both = {1, "first"};
std::array<long, 4> fixed = {1, 2, 3, 4};
std::optional<int> maybe = 4;
Shape *square = new Square;
Tagged *tagged = new Sticker;
Derived derived;
Derived &alias = derived;
Database *database = new Database;

template <typename T> static void note(const T &what, const char *name)
{
	char line[200];
	int length = std::snprintf(line, sizeof(line), "%p %zx %s\n",
				   reinterpret_cast<const volatile void *>(&what), sizeof(what), name);
	if (write(1, line, static_cast<size_t>(length)) < 0)
		_exit(9);
}

#define SET(lvalue, value) ((lvalue) = (value), note(lvalue, #lvalue))

int scalars(int n)
{
	SET(space::visible, n);
	SET(space::invisible, n);
	SET(space::anonymous.b, n);
	SET(Derived::instances, n);
	SET(Box<int>::total, n);
	SET(fixed[2], n);
	return n;
}

int own(int n)
{
	SET(space::own, n);
	return n;
}

int bases(int n)
{
	SET(derived.shared, n);
	SET(derived.left, n);
	SET(derived.hidden, n);
	SET(derived.Base::hidden, n);
	return n;
}

int elements(int n)
{
	SET(ages["ada"], n);
	SET(primes[2], n);
	SET(boxes[3].inside, static_cast<short>(n));
	SET(boxes[4].nameless, static_cast<short>(n));
	SET(queue[1], n);
	SET(database->rows[1][0], n);
	SET(database->box.nameless, n);
	SET(owned->side, n);
	SET(shared->side, n);
	SET(both.first, n);
	return n;
}

int dynamic(int n)
{
	SET(static_cast<Square *>(square)->side, n);
	SET(static_cast<Sticker *>(tagged)->price, static_cast<short>(n));
	SET(tagged->tag, n);
	return n;
}

int texts(int n)
{
	title[3] = 'Z';
	brief[1] = 'Q';
	words[1] = "uno";
	database->names[1] = "zz";
	both.second = "second";
	return n;
}

int inserts(int n)
{
	ages["barbara"] = n;
	words[7] = "seven is longer than fifteen";
	chain.push_back(n);
	bag.insert(n);
	primes.push_back(n);
	return n;
}

int marking(int n)
{
	marks[1] = true;
	mask[1] = true;
	return n;
}

int replaces(int n)
{
	shared = std::make_shared<Square>();
	shared->side = n;
	return n;
}

int erases(int n)
{
	ages.erase("alan");
	bag.erase(6);
	chain.pop_front();
	return n;
}

int main(int argc, char **)
{
	static int never;

	if (argc > 5)
		never = scalars(argc) + own(1) + bases(1) + elements(1) + dynamic(1) + texts(1) + inserts(1) +
			erases(1) + marking(1) + replaces(1) + *maybe + alias.left;
	raise(SIGABRT);
	return never;
}
