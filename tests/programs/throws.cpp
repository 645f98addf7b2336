// Functions that let an exception through.  With a name as argument it is called in the live process, whose last words tell
// what it was.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#define OWN extern "C" __attribute__((noinline, used)) int

struct Price : std::out_of_range {
	using std::out_of_range::out_of_range;
};

struct Worded : std::exception {
	char text[32] = "in its own ";
	const char *what() const noexcept override
	{
		return strcat(const_cast<char *>(text), "words");
	}
};

struct Padded {
	virtual ~Padded() = default;
	long padding[5];
};

struct Base : virtual std::exception {
	const char *what() const noexcept override
	{
		return "by a virtual base";
	}
};

struct Several : Padded, Base {};

struct Endless : std::exception {
	const char *what() const noexcept override
	{
		for (volatile int i = 0;; i = i + 1)
			;
	}
};

struct Nothing : std::exception {
	const char *what() const noexcept override
	{
		return (const char *)8;
	}
};

namespace shop {
struct Oops {
	int code;
	double price;
};
}

namespace shop {
struct Refused {
	int code;
	const char *why;
	std::string who;
	int many[300];
};
}

int counter;

OWN out_of_range() { throw std::out_of_range("no such price"); }
OWN quoted() { throw std::runtime_error("a \"quoted\"\033]0;OWNED\007\n line"); }
OWN derived() { throw Price("too dear"); }
OWN worded() { throw Worded(); }
OWN several() { throw Several(); }
OWN plain() { throw std::exception(); }
OWN no_memory() { throw std::bad_alloc(); }
OWN system_error()
{
	throw std::system_error(std::make_error_code(std::errc::no_space_on_device), "store");
}
OWN number() { throw 42; }
OWN text() { throw "out of stock"; }
OWN oops()
{
	shop::Oops thrown{7, 2.5};
	throw thrown;
}
OWN pointer() { throw &counter; }
OWN std_string() { throw std::string("text in a string"); }
OWN refused()
{
	counter++;
	shop::Refused thrown{7, "not today", "a customer", {}};
	throw thrown;
}
OWN wordy() { throw std::runtime_error(std::string(5000, 'w')); }
OWN long_string() { throw std::string(5000, 's'); }
OWN length() { throw std::length_error("through noexcept"); }
OWN inner() noexcept { return length(); }
OWN again()
{
	try {
		throw std::domain_error("thrown twice");
	} catch (...) {
		counter++;
		throw;
	}
}
OWN carried()
{
	std::exception_ptr held = std::make_exception_ptr(std::range_error("carried"));
	std::rethrow_exception(held);
}
OWN other()
{
	try {
		throw 1;
	} catch (int) {
		throw std::underflow_error("the second");
	}
}
OWN bare_terminate() { std::terminate(); }
OWN endless() { throw Endless(); }
OWN nothing() { throw Nothing(); }
OWN caught()
{
	try {
		return out_of_range();
	} catch (const std::exception &) {
		return ++counter;
	}
}

static const struct {
	const char *name;
	int (*call)();
} calls[] = {
	{"out_of_range", out_of_range}, {"quoted", quoted}, {"derived", derived}, {"worded", worded},
	{"several", several}, {"plain", plain}, {"no_memory", no_memory}, {"system_error", system_error},
	{"number", number}, {"text", text}, {"oops", oops}, {"pointer", pointer}, {"std_string", std_string},
	{"refused", refused}, {"wordy", wordy}, {"long_string", long_string},
	{"inner", inner}, {"again", again}, {"carried", carried}, {"other", other}, {"bare_terminate", bare_terminate},
	{"endless", endless}, {"nothing", nothing}, {"caught", caught},
};

int main(int argc, char **argv)
{
	for (const auto &each : calls)
		if (argc > 1 && !strcmp(argv[1], each.name))
			each.call();
	abort();
}
