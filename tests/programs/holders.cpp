// Types that hold something at times: std::optional, std::variant, vectors with room; long names.
#include <csignal>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace deep::inner
{
template <typename Key, typename Value> struct Registry {
	std::map<Key, Value> by_name;
	static long total;
	void insert(const Key &key, const Value &value)
	{
		by_name[key] = value;
		total++;
	}
};
template <typename Key, typename Value> long Registry<Key, Value>::total = 3;
} // namespace deep::inner

using Row = std::pair<std::string, std::vector<long>>;
using Registry = deep::inner::Registry<std::string, std::vector<Row>>;

std::map<std::string, std::vector<std::string>> table = {{"ada", {"one", "two"}}};
Registry registry;

struct Node {
	long value;
	Node *next;
};

Node *last = new Node{1, nullptr};
std::optional<Node *> perhaps = last;
std::variant<long, Node *> either = last;
std::optional<std::string> label;
std::vector<long> roomy = {1, 2, 3};
std::vector<Node> nodes = {{1, nullptr}, {2, nullptr}};

long widen(long n)
{
	table["ada"].push_back("three is a text that is longer than fifteen");
	table["a name that is longer than fifteen"].push_back("x");
	registry.insert("key", {{"first", {n, 2, 3}}});
	return n;
}

// What they held lives on, and nobody else points to it but `last`.
long lets_go(long n)
{
	perhaps.reset();
	either = n;
	return n;
}

long writes_to(Node *node)
{
	node->value++;
	return node->value;
}

long engages(long n)
{
	label = std::string(static_cast<size_t>(n), 'a');
	perhaps = last;
	(*perhaps)->value += n;
	return n;
}

long appends(long n)
{
	roomy.push_back(n);
	roomy.push_back(n + 1);
	roomy[0] = n;
	nodes.push_back({n, last});
	return n;
}

int main(int argc, char **)
{
	roomy.reserve(8);
	nodes.reserve(4);
	if (argc > 5)
		return static_cast<int>(widen(1) + lets_go(1) + writes_to(last) + engages(1) + appends(1));
	raise(SIGABRT);
	return 0;
}
