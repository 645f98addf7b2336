#include "desk.h"

#include <errno.h>
#include <fcntl.h>
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

void desk_close(struct desk *desk, const struct desk *kept)
{
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &desk->files[i];
		if (file->kind && file->fd >= 0 && !holds(kept, file->fd))
			close(file->fd);
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
		if (desk->table[i] >= 0 || bit(record->descriptors, i))
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
	int fd = file->fd;
	*file = (struct opened){.fd = -1};
	if (fd >= 0 && !holds(saved, fd) && !holds(desk, fd))
		close(fd);
}

int desk_drop(struct desk *desk, const struct desk *saved, int64_t descriptor)
{
	struct opened *file = desk_find(desk, descriptor);

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
