#include "desk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool bit(const uint8_t *bits, int number)
{
	return bits[number / 8] >> (number % 8) & 1;
}

static void set_bit(uint8_t *bits, int number, bool on)
{
	bits[number / 8] = (uint8_t)((bits[number / 8] & ~(1 << (number % 8))) | on << (number % 8));
}

void desk_init(struct desk *desk, const struct identity *record)
{
	*desk = (struct desk){.directory = -1, .umask = 022};
	for (int i = 0; i < DESCRIPTORS_MAX; i++)
		desk->table[i] = -1;
	for (int i = 0; i < 3; i++) {
		struct opened *file = desk_open(desk, -1, i ? OPENED_OUTPUT : OPENED_INPUT, i ? O_WRONLY : O_RDONLY);
		desk->table[i] = (int16_t)(file - desk->files);
	}
	timers_init(desk);
	memcpy(desk->name, record->name, sizeof(desk->name));
	memcpy(desk->cwd, record->cwd, sizeof(desk->cwd));
}

static bool holds(const struct desk *desk, int fd)
{
	for (int i = 0; desk && i < OPENED_MAX; i++)
		if (desk->files[i].kind && desk->files[i].fd == fd)
			return true;
	return false;
}

static void let_go(struct held *held)
{
	if (held && !--held->refs)
		free(held);
}

void desk_share(struct desk *to, const struct desk *from)
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

int desk_hold(struct opened *file, const void *bytes, size_t len)
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

uint8_t *desk_held(struct opened *file)
{
	struct held *held = file->held ? own(file, file->held->len) : NULL;

	return held ? held->bytes : NULL;
}

int desk_take(struct opened *file, size_t at, size_t len)
{
	uint8_t *bytes = desk_held(file);

	if (!bytes)
		return -ENOMEM;
	memmove(bytes + at, bytes + at + len, file->held->len - at - len);
	file->held->len -= len;
	return 0;
}

void desk_close(struct desk *desk, const struct desk *kept)
{
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &desk->files[i];
		if (file->kind && file->fd >= 0 && !holds(kept, file->fd))
			close(file->fd);
		let_go(file->held);
		*file = (struct opened){.fd = -1};
	}
}

struct opened *desk_find(struct desk *desk, int64_t descriptor)
{
	if (descriptor < 0 || descriptor >= DESCRIPTORS_MAX || desk->table[descriptor] < 0)
		return NULL;
	return &desk->files[desk->table[descriptor]];
}

struct opened *desk_open(struct desk *desk, int fd, int kind, uint32_t flags)
{
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &desk->files[i];
		if (file->kind)
			continue;
		*file = (struct opened){.fd = fd, .kind = (uint8_t)kind, .refs = 1, .flags = flags};
		return file;
	}
	return NULL;
}

int desk_install(struct desk *desk, const struct identity *record, struct opened *file, int64_t lowest,
		 bool close_on_exec)
{
	for (int i = lowest < 0 ? 0 : (int)lowest; i < DESCRIPTORS_MAX; i++) {
		if (desk->table[i] >= 0 || bit(record->descriptors, i) || (bit(desk->silent, i) && !bit(desk->missing, i)))
			continue;
		desk->table[i] = (int16_t)(file - desk->files);
		set_bit(desk->close_on_exec, i, close_on_exec);
		return i;
	}
	return -EMFILE;
}

bool desk_closes_on_exec(const struct desk *desk, int descriptor)
{
	return descriptor >= 0 && descriptor < DESCRIPTORS_MAX && bit(desk->close_on_exec, descriptor);
}

void desk_tell_missing(struct desk *desk, int64_t descriptor)
{
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX)
		set_bit(desk->missing, (int)descriptor, true);
}

void desk_take_for_silent(struct desk *desk, int descriptor)
{
	set_bit(desk->silent, descriptor, true);
}

static bool is_number(int descriptor)
{
	return descriptor >= 0 && descriptor < DESCRIPTORS_MAX;
}

bool desk_is_silent(const struct desk *desk, int descriptor)
{
	return is_number(descriptor) && bit(desk->silent, descriptor);
}

bool desk_silent_waits(const struct desk *desk, int descriptor)
{
	return desk_is_silent(desk, descriptor) && bit(desk->waits, descriptor);
}

void desk_silent_wait(struct desk *desk, int descriptor, bool on)
{
	set_bit(desk->waits, descriptor, on);
}

bool desk_may_be(const struct desk *desk, const struct identity *record, int64_t descriptor)
{
	int number = (int)descriptor;

	if (descriptor < 3 || descriptor >= DESCRIPTORS_MAX || desk->table[number] >= 0 || bit(desk->missing, number))
		return false;
	return !record->descriptors_told || bit(record->descriptors, number);
}

void desk_close_on_exec(struct desk *desk, int descriptor, bool on)
{
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX)
		set_bit(desk->close_on_exec, descriptor, on);
}

/* A descriptor of ours goes when nobody needs it: neither the desk nor the one to come back to. */
void desk_release(struct desk *desk, const struct desk *saved, struct opened *file)
{
	if (--file->refs)
		return;
	struct opened *peer = file->peer ? &desk->files[file->peer - 1] : NULL;
	int fd = file->fd;
	if (file->kind == OPENED_TIMER)
		desk->timers[file->offset] = (struct timer){0};
	let_go(file->held);
	*file = (struct opened){.fd = -1};
	if (peer) {
		peer->peer = 0;
		peer->turns++;
		if (peer->nowhere)
			desk_release(desk, saved, peer);
	}
	if (fd >= 0 && !holds(saved, fd) && !holds(desk, fd))
		close(fd);
}

int desk_drop(struct desk *desk, const struct desk *saved, int64_t descriptor)
{
	struct opened *file = desk_find(desk, descriptor);

	desk_tell_missing(desk, descriptor);
	if (!file)
		return -EBADF;
	desk->table[descriptor] = -1;
	desk_release(desk, saved, file);
	return 0;
}

void desk_replace(struct desk *desk, const struct desk *saved, int descriptor, struct opened *file,
		  bool close_on_exec)
{
	file->refs++;
	desk_drop(desk, saved, descriptor);
	desk->table[descriptor] = (int16_t)(file - desk->files);
	set_bit(desk->close_on_exec, descriptor, close_on_exec);
}
