/* timers.c - timers that a call sets; each function says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t fired;
siginfo_t seen;
static sem_t never;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	seen = *info;
	fired++;
}

static void handle(int number, int flags)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};

	sigaction(number, &action, NULL);
	fired = 0;
}

static long seconds_since(const struct timespec *began, clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (now.tv_sec - began->tv_sec) * 1000 + (now.tv_nsec - began->tv_nsec) / 1000000;
}

long alarm_ends_pause(void) /* the virtual time that passed, in milliseconds */
{
	struct timespec began;

	handle(SIGALRM, 0);
	clock_gettime(CLOCK_MONOTONIC, &began);
	alarm(30);
	int rc = pause();
	if (rc != -1 || errno != EINTR || fired != 1 || seen.si_code != SI_KERNEL)
		return -1;
	return seconds_since(&began, CLOCK_MONOTONIC);
}

long alarm_cuts_sleep(void) /* what is left of it */
{
	handle(SIGALRM, SA_RESTART);
	alarm(30);
	unsigned left = sleep(100);
	return fired == 1 ? (long)left : -1;
}

long alarm_later(void) /* the sleep is over first */
{
	handle(SIGALRM, 0);
	alarm(100);
	unsigned left = sleep(30);
	return left || fired ? -1 : (long)alarm(0);
}

long arm_alarm(void)
{
	handle(SIGALRM, 0);
	return alarm(1000);
}

long nap(long seconds)
{
	return sleep((unsigned)seconds);
}

long left_of_alarm(void)
{
	return alarm(0);
}

long cancelled;

long cancel_alarm(void)
{
	cancelled = alarm(0);
	return cancelled;
}

long compute_until_fired(long which) /* a loop that asks for nothing */
{
	static const int signals[] = {SIGALRM, SIGVTALRM, SIGPROF};
	struct itimerval soon = {{0, 0}, {0, 20000}}, left;

	handle(signals[which], 0);
	setitimer((__itimer_which_t)which, &soon, NULL);
	while (!fired)
		;
	getitimer((__itimer_which_t)which, &left);
	return seen.si_signo == signals[which] && !left.it_value.tv_sec && !left.it_value.tv_usec;
}

long interval(long times) /* sleeping does not count for the profiling timer */
{
	struct itimerval soon = {{1, 0}, {1, 0}}, none = {{0, 0}, {0, 0}}, old;

	handle(SIGALRM, 0);
	handle(SIGPROF, 0);
	setitimer(ITIMER_PROF, &soon, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	while (fired < times)
		pause();
	setitimer(ITIMER_REAL, &none, &old);
	setitimer(ITIMER_PROF, &none, NULL);
	return old.it_interval.tv_sec == 1 && seen.si_signo == SIGALRM ? fired : -1;
}

long posix_timer(long to_thread) /* the value that was to come, and how often it was overrun */
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 77};
	struct itimerspec spec = {{0, 100000000}, {5, 0}}, left, was = {{9, 9}, {9, 9}};
	timer_t timer, other;

	if (to_thread) {
		event.sigev_notify = SIGEV_THREAD_ID;
		event._sigev_un._tid = (int)syscall(SYS_gettid);
	}
	handle(SIGRTMIN + 3, 0);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 || timer_settime(timer, 0, &spec, NULL) < 0)
		return -errno;
	timer_gettime(timer, &left);
	if (left.it_value.tv_sec > 5 || left.it_value.tv_sec < 4 || left.it_interval.tv_nsec != 100000000)
		return -2;
	if (timer_settime(timer, 0, &spec, &left) < 0 || left.it_value.tv_sec > 5 || left.it_value.tv_sec < 4)
		return -5;
	if (timer_create(CLOCK_MONOTONIC, NULL, &other) < 0 || timer_settime(other, 0, &spec, &was) < 0)
		return -6;
	if (was.it_value.tv_sec || was.it_value.tv_nsec || was.it_interval.tv_sec || was.it_interval.tv_nsec)
		return -7;
	timer_delete(other);
	sleep(60);
	if (fired != 1 || seen.si_code != SI_TIMER || seen.si_value.sival_int != 77)
		return -3;
	if (timer_delete(timer) < 0 || timer_delete(timer) == 0)
		return -4;
	return seen.si_overrun;
}

static void on_thread(union sigval value)
{
	(void)value;
}

long thread_timer(void) /* it needs a thread: the errno */
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread};
	timer_t timer;

	return timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 ? errno : 0;
}

long absolute(void)
{
	struct itimerspec spec = {{0, 0}, {0, 0}};
	timer_t timer;

	handle(SIGALRM, 0);
	clock_gettime(CLOCK_REALTIME, &spec.it_value);
	spec.it_value.tv_sec += 3600;
	struct timespec until = spec.it_value;
	until.tv_sec += 3600;
	if (timer_create(CLOCK_REALTIME, NULL, &timer) < 0 || timer_settime(timer, TIMER_ABSTIME, &spec, NULL) < 0)
		return -errno;
	int rc = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL);
	return rc == EINTR && fired == 1 ? seconds_since(&until, CLOCK_REALTIME) : -1;
}

long by_descriptor(void) /* 0, or the line that is wrong */
{
	struct itimerspec spec = {{2, 0}, {10, 0}}, was = {{0, 0}, {0, 0}};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), other = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	struct pollfd both[2] = {{fd, POLLIN, 0}, {other, POLLIN, 0}};
	struct timespec began;
	uint64_t ticks = 0;

	clock_gettime(CLOCK_MONOTONIC, &began);
	if (fd < 0 || timerfd_settime(fd, 0, &spec, NULL) < 0 || timerfd_settime(fd, 0, &spec, &was) < 0)
		return __LINE__;
	if (was.it_interval.tv_sec != 2 || was.it_value.tv_sec > 10 || was.it_value.tv_sec < 9)
		return __LINE__;
	if (read(other, &ticks, sizeof(ticks)) != -1 || errno != EAGAIN)
		return __LINE__;
	if (poll(both, 2, 5000) != 0 || poll(both, 2, -1) != 1 || both[0].revents != POLLIN)
		return __LINE__;
	if (seconds_since(&began, CLOCK_MONOTONIC) / 1000 != 10)
		return __LINE__;
	sleep(5); /* two more */
	if (read(fd, &ticks, sizeof(ticks)) != sizeof(ticks) || ticks != 3)
		return __LINE__;
	if (read(fd, &ticks, sizeof(ticks)) != sizeof(ticks) || ticks != 1) /* it waits for the next */
		return __LINE__;
	close(fd);
	return poll(both + 1, 1, 1000) ? __LINE__ : 0;
}

long wait_again(void) /* SA_RESTART: the wait goes on behind the handler, for ever */
{
	handle(SIGALRM, SA_RESTART);
	sem_init(&never, 0, 0);
	alarm(5);
	return sem_wait(&never);
}

long poll_for_ever(void) /* for what another thread would do */
{
	fired = 0;
	while (!fired)
		poll(NULL, 0, 60000);
	return 0;
}

long poll_often(void) /* but not for long */
{
	long sum = 0;

	for (int i = 0; i < 3000; i++)
		sum += poll(NULL, 0, 10) + 1;
	return sum;
}

long wait_cut(void)
{
	handle(SIGALRM, 0);
	sem_init(&never, 0, 0);
	alarm(5);
	return sem_wait(&never) < 0 ? errno : 0;
}

long wait_for_alarm(void) /* blocked, and taken */
{
	sigset_t set;
	int number = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	alarm(7);
	sigwait(&set, &number);
	return number;
}

long suspend(void)
{
	sigset_t set, old;

	handle(SIGALRM, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, &old);
	alarm(7);
	sleep(20); /* blocked: it waits */
	if (fired)
		return -1;
	sigsuspend(&old);
	return fired;
}

int main(void)
{
	free(malloc(100));
	abort();
}
