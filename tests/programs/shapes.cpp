// C++: containers, strings, virtual methods, operators, exceptions.
// usage: shapes abort|pause
#include <cstdlib>
#include <cstring>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

struct Shape {
	virtual ~Shape() = default;
	virtual double area() const = 0;
	virtual std::string name() const { return "shape"; }
};

struct Square : Shape {
	double side;
	explicit Square(double s) : side(s) {}
	double area() const override { return side * side; }
	std::string name() const override { return "square"; }
};

struct Circle : Shape {
	double radius;
	explicit Circle(double r) : radius(r) {}
	double area() const override { return 3 * radius * radius; }
};

struct Money {
	long cents;
	Money operator+(const Money &other) const { return {cents + other.cents}; }
	bool operator==(const Money &other) const { return cents == other.cents; }
	Money &operator+=(const Money &other)
	{
		cents += other.cents;
		return *this;
	}
};

std::map<std::string, int> ages = {{"ada", 36}, {"alan", 41}, {"grace", 85}};
std::vector<int> primes = {2, 3, 5, 7, 11};
std::string title = "a string that is longer than the small buffer of the class";
Square square(3);
Circle circle(2);
Shape *first = &square, *second = &circle;
Money purse{150}, fee{25};
int caught;

int age_of(const char *who)
{
	auto found = ages.find(who);
	return found == ages.end() ? -1 : found->second;
}

int add_age(const char *who, int age)
{
	ages[who] = age;
	return static_cast<int>(ages.size());
}

double total_area()
{
	return first->area() + second->area();
}

[[gnu::noinline]] static int thrower(int code)
{
	if (code)
		throw std::runtime_error("code " + std::to_string(code));
	return 0;
}

int catches(int code)
{
	try {
		return thrower(code);
	} catch (const std::exception &error) {
		caught++;
		return static_cast<int>(std::strlen(error.what()));
	}
}

int throws(int code)
{
	return thrower(code);
}

std::string join(const std::string &glue)
{
	std::string out;
	for (auto &entry : ages)
		out += (out.empty() ? "" : glue) + entry.first;
	return out;
}

extern "C" void checkpoint()
{
	std::puts("ready");
	std::fflush(stdout);
}

int main(int argc, char **argv)
{
	// Used once, so that the compiler emits them.
	std::string glue = ", ";
	if (join(glue).size() + primes.size() + primes[argc] < 3 || catches(1) < 0 || total_area() < 0)
		return 1;
	if (argc > 5)
		return throws(argc) + (purse + fee == purse) + (purse += fee).cents > 0 ? age_of("x") : add_age("y", 1);
	checkpoint();
	if (argc > 1 && !std::strcmp(argv[1], "abort"))
		std::abort();
	for (;;)
		pause();
}
