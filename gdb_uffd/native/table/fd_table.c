#include "table/fd_table.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void init_timers(struct kernel_state *state)
{
	static const int signals[] = {[ITIMER_REAL] = SIGALRM, [ITIMER_VIRTUAL] = SIGVTALRM, [ITIMER_PROF] = SIGPROF};

	for (int i = 0; i < 3; i++)
		state->timers[i] = (struct timer){
			.kind = TIMER_INTERVAL, .cpu = i != ITIMER_REAL, .signal = signals[i]};
}

static bool bit(const uint8_t *bits, int number)
{
	return bits[number / 8] >> (number % 8) & 1;
}

static void set_bit(uint8_t *bits, int number, bool on)
{
	bits[number / 8] = (uint8_t)((bits[number / 8] & ~(1 << (number % 8))) | on << (number % 8));
}

void fd_table_init(struct kernel_state *state, const struct identity *identity)
{
	*state = (struct kernel_state){.directory = -1, .umask = 022};
	for (int i = 0; i < DESCRIPTORS_MAX; i++)
		state->table[i] = -1;
	for (int i = 0; i < 3; i++) {
		struct opened *file = fd_table_open(state, -1, i ? OPENED_OUTPUT : OPENED_INPUT, i ? O_WRONLY : O_RDONLY);
		state->table[i] = (int16_t)(file - state->files);
	}
	init_timers(state);
	memcpy(state->name, identity->name, sizeof(state->name));
	memcpy(state->cwd, identity->cwd, sizeof(state->cwd));
}

static bool holds(const struct kernel_state *state, int fd)
{
	for (int i = 0; state && i < OPENED_MAX; i++)
		if (state->files[i].kind && state->files[i].fd == fd)
			return true;
	return false;
}

static void let_go(struct held *held)
{
	if (held && !--held->refs)
		free(held);
}

void fd_table_share(struct kernel_state *to, const struct kernel_state *from)
{
	*to = *from;
	for (int i = 0; i < OPENED_MAX; i++)
		if (to->files[i].held)
			to->files[i].held->refs++;
}

/* A copy of its own, with room for `len` bytes. */
static struct held *own(struct opened *file, size_t len)
{
	struct held *held = file->held;
	bool shared = held && held->refs > 1;
	struct held *made = held && !shared ? realloc(held, sizeof(*made) + len) : calloc(1, sizeof(*made) + len);

	if (!made)
		return NULL;
	if (shared) {
		made->len = held->len;
		memcpy(made->bytes, held->bytes, held->len < len ? held->len : len);
		held->refs--;
	}
	made->refs = 1;
	file->held = made;
	return made;
}

int fd_table_hold(struct opened *file, const void *bytes, size_t len)
{
	size_t before = file->held ? file->held->len : 0;
	struct held *held = own(file, before + len);

	if (!held)
		return -ENOMEM;
	memcpy(held->bytes + before, bytes, len);
	held->len = before + len;
	file->turns++;
	return 0;
}

uint8_t *fd_table_held(struct opened *file)
{
	struct held *held = file->held ? own(file, file->held->len) : NULL;

	return held ? held->bytes : NULL;
}

int fd_table_take(struct opened *file, size_t at, size_t len)
{
	uint8_t *bytes = fd_table_held(file);

	if (!bytes)
		return -ENOMEM;
	memmove(bytes + at, bytes + at + len, file->held->len - at - len);
	file->held->len -= len;
	return 0;
}

void fd_table_close(struct kernel_state *state, const struct kernel_state *kept)
{
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &state->files[i];
		if (file->kind && file->fd >= 0 && !holds(kept, file->fd))
			close(file->fd);
		let_go(file->held);
		*file = (struct opened){.fd = -1};
	}
}

struct opened *fd_table_find(struct kernel_state *state, int64_t descriptor)
{
	if (descriptor < 0 || descriptor >= DESCRIPTORS_MAX || state->table[descriptor] < 0)
		return NULL;
	return &state->files[state->table[descriptor]];
}

struct opened *fd_table_open(struct kernel_state *state, int fd, int kind, uint32_t flags)
{
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &state->files[i];
		if (file->kind)
			continue;
		*file = (struct opened){.fd = fd, .kind = (uint8_t)kind, .refs = 1, .flags = flags};
		return file;
	}
	return NULL;
}

int fd_table_install(struct kernel_state *state, const struct identity *identity, struct opened *file,
		     int64_t lowest, bool close_on_exec)
{
	for (int i = lowest < 0 ? 0 : (int)lowest; i < DESCRIPTORS_MAX; i++) {
		if (state->table[i] >= 0 || bit(identity->descriptors, i) || (bit(state->silent, i) && !bit(state->missing, i)))
			continue;
		state->table[i] = (int16_t)(file - state->files);
		set_bit(state->close_on_exec, i, close_on_exec);
		return i;
	}
	return -EMFILE;
}

bool fd_table_closes_on_exec(const struct kernel_state *state, int descriptor)
{
	return descriptor >= 0 && descriptor < DESCRIPTORS_MAX && bit(state->close_on_exec, descriptor);
}

void fd_table_tell_missing(struct kernel_state *state, int64_t descriptor)
{
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX)
		set_bit(state->missing, (int)descriptor, true);
}

void fd_table_take_for_silent(struct kernel_state *state, int descriptor)
{
	set_bit(state->silent, descriptor, true);
}

static bool is_number(int descriptor)
{
	return descriptor >= 0 && descriptor < DESCRIPTORS_MAX;
}

bool fd_table_is_silent(const struct kernel_state *state, int descriptor)
{
	return is_number(descriptor) && bit(state->silent, descriptor);
}

bool fd_table_silent_waits(const struct kernel_state *state, int descriptor)
{
	return fd_table_is_silent(state, descriptor) && bit(state->waits, descriptor);
}

void fd_table_silent_wait(struct kernel_state *state, int descriptor, bool on)
{
	set_bit(state->waits, descriptor, on);
}

bool fd_table_may_be(const struct kernel_state *state, const struct identity *identity, int64_t descriptor)
{
	int number = (int)descriptor;

	if (descriptor < 3 || descriptor >= DESCRIPTORS_MAX || state->table[number] >= 0 || bit(state->missing, number))
		return false;
	return !identity->descriptors_told || bit(identity->descriptors, number);
}

void fd_table_close_on_exec(struct kernel_state *state, int descriptor, bool on)
{
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX)
		set_bit(state->close_on_exec, descriptor, on);
}

/* A descriptor of ours goes when nobody needs it: neither the kernel state nor the one to come back to. */
void fd_table_release(struct kernel_state *state, const struct kernel_state *saved, struct opened *file)
{
	if (--file->refs)
		return;
	struct opened *peer = file->peer ? &state->files[file->peer - 1] : NULL;
	int fd = file->fd;
	if (file->kind == OPENED_TIMER)
		state->timers[file->offset] = (struct timer){0};
	let_go(file->held);
	*file = (struct opened){.fd = -1};
	if (peer) {
		peer->peer = 0;
		peer->turns++;
		if (peer->nowhere)
			fd_table_release(state, saved, peer);
	}
	if (fd >= 0 && !holds(saved, fd) && !holds(state, fd))
		close(fd);
}

int fd_table_drop(struct kernel_state *state, const struct kernel_state *saved, int64_t descriptor)
{
	struct opened *file = fd_table_find(state, descriptor);

	fd_table_tell_missing(state, descriptor);
	if (!file)
		return -EBADF;
	state->table[descriptor] = -1;
	fd_table_release(state, saved, file);
	return 0;
}

void fd_table_replace(struct kernel_state *state, const struct kernel_state *saved, int descriptor,
		      struct opened *file, bool close_on_exec)
{
	file->refs++;
	fd_table_drop(state, saved, descriptor);
	state->table[descriptor] = (int16_t)(file - state->files);
	set_bit(state->close_on_exec, descriptor, close_on_exec);
}
