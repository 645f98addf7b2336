// A C++ program with threads whose containers grow; `settled` is called after each round.
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Account {
	virtual ~Account() = default;
	virtual long balance() const { return cents; }
	long cents = 0;
};

struct Savings : Account {
	long balance() const override { return cents + cents / 10; }
};

std::map<std::string, std::unique_ptr<Account>> ledger;
std::vector<long> history;
std::mutex guard;
std::condition_variable changed;
int now = -1;
std::atomic<int> done{0};
thread_local long visits = 0;

long balance(const char *name)
{
	auto found = ledger.find(name);
	return found == ledger.end() ? -1 : found->second->balance();
}

long deposit(const char *name, long cents)
{
	auto &account = ledger[name];
	if (!account)
		account = std::make_unique<Savings>();
	account->cents += cents;
	history.push_back(cents);
	visits++;
	return account->balance();
}

long history_sum()
{
	long sum = 0;
	for (long cents : history)
		sum += cents;
	return sum;
}

long risky(long at)
{
	try {
		return history.at(at);
	} catch (const std::out_of_range &) {
		return -2;
	}
}

std::string joined()
{
	std::string text;
	for (auto &[name, account] : ledger)
		text += name + ";";
	return text;
}

extern "C" void settled(int round)
{
	asm volatile("" : : "r"(round) : "memory");
}

static void clerk(int number, int rounds)
{
	for (int round = 0; round < rounds; round++) {
		std::unique_lock<std::mutex> lock(guard);
		changed.wait(lock, [=] { return now >= round; });
		deposit(("account " + std::to_string(round % 5) + std::to_string(number)).c_str(),
			100 * round + number);
		done++;
		changed.notify_all();
	}
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? std::atoi(argv[1]) : 10;
	std::thread first(clerk, 1, rounds), second(clerk, 2, rounds);

	for (int round = 0; round < rounds; round++) {
		{
			std::unique_lock<std::mutex> lock(guard);
			now = round;
			changed.notify_all();
			changed.wait(lock, [=] { return done == 2 * (round + 1); });
		}
		settled(round);
	}
	first.join();
	second.join();
	std::cout << history_sum() << "\n";
}
