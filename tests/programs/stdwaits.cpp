// Waits of the C++ library for a thread that a core holds still.
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <thread>

std::mutex guard, other;
std::condition_variable changed;
std::promise<int> promise;
std::future<int> answer;
bool held;

void keeper()
{
	std::lock_guard<std::mutex> mine(guard);
	std::unique_lock<std::mutex> lock(other);
	held = true;
	changed.notify_all();
	for (;;)
		changed.wait(lock);
}

int lock_guarded()
{
	std::lock_guard<std::mutex> mine(guard);
	return 1;
}

int await_change()
{
	std::unique_lock<std::mutex> lock(other);
	changed.wait(lock);
	return 2;
}

int get_answer()
{
	return answer.get();
}

int main()
{
	answer = promise.get_future();
	std::thread(keeper).detach();
	std::unique_lock<std::mutex> lock(other);
	while (!held)
		changed.wait(lock);
	lock.unlock();
	abort();
}
