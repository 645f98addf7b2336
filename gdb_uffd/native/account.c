/* account.c - what a transaction's report tells of system calls, and the desk's way back. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notify.h"
#include "user_memory.h"
#include "vessel.h"

const struct desk *vessel_saved_desk(const struct vessel *vessel)
{
	return vessel->in_transaction ? &vessel->saved : NULL;
}

static void forget_account(struct vessel *vessel)
{
	vessel->refused_count = vessel->refused_more = vessel->opened_count = vessel->passed_count = 0;
	vessel->adopted_count = 0;
	vessel->read.len = vessel->read.count = vessel->read.more = 0;
	vessel->turn++;
	for (uint32_t i = 0; i < vessel->granted_count; i++) {
		uint16_t nr = vessel->granted_order[i];
		vessel->granted[nr] = vessel->withdrawn[nr] = 0;
	}
	vessel->granted_count = 0;
	vessel->kernel_changed = false;
}

void vessel_begin(struct vessel *vessel)
{
	forget_account(vessel);
	desk_share(&vessel->saved, &vessel->desk);
	vessel->in_transaction = true;
	vessel->cuts = vessel->waits = 0;
	vessel->waited_ns = 0;
}

void vessel_end(struct vessel *vessel, bool keep)
{
	if (!vessel->in_transaction)
		return;
	vessel->in_transaction = false;
	if (keep) {
		desk_close(&vessel->saved, &vessel->desk);
		return;
	}
	desk_close(&vessel->desk, &vessel->saved);
	vessel->desk = vessel->saved;
}

void vessel_forget_desk(struct vessel *vessel)
{
	vessel_end(vessel, false);
	desk_close(&vessel->desk, NULL);
	desk_close(&vessel->past, NULL);
	desk_init(&vessel->desk, &vessel->record);
	desk_init(&vessel->past, &vessel->record);
	forget_account(vessel);
	vessel->out_len = 0;
}

/* With descriptors of its own. */
static void copy_desk(struct desk *to, const struct desk *from)
{
	desk_close(to, NULL);
	desk_share(to, from);
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &to->files[i];
		if (file->kind && file->fd >= 0)
			file->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
	}
}

void vessel_note_past(struct vessel *vessel)
{
	if (vessel->in_transaction)
		copy_desk(&vessel->past, &vessel->saved);
}

void vessel_copy_past(struct vessel *vessel, const struct vessel *other)
{
	copy_desk(&vessel->desk, &other->past);
}

void vessel_copy_desk(struct vessel *vessel, const struct vessel *other)
{
	copy_desk(&vessel->desk, &other->desk);
}

void vessel_note_granted(struct vessel *vessel, uint64_t nr)
{
	if (nr < RULES && !vessel->granted[nr]++)
		vessel->granted_order[vessel->granted_count++] = (uint16_t)nr;
}

void vessel_note_opened(struct vessel *vessel, const struct system_call *call, uint64_t path)
{
	char text[4096];

	if (vessel->opened_count++ >= OPENED_NAMES_MAX)
		return;
	struct opened_name *name = &vessel->opened[vessel->opened_count - 1];
	int len = user_load_string(vessel->pager, path, text, sizeof(text));
	*name = (struct opened_name){.nr = (uint16_t)call->nr, .cut = len > REFUSED_BYTES};
	name->len = (uint16_t)(len < 0 ? 0 : len < REFUSED_BYTES ? len : REFUSED_BYTES);
	memcpy(name->bytes, text, name->len);
}

static int make_room(struct names *names, size_t len)
{
	size_t room = names->room ? names->room * 2 : 4096;

	if (names->len + len <= names->room)
		return 0;
	while (room < names->len + len)
		room *= 2;
	char *larger = realloc(names->text, room);
	if (!larger)
		return -ENOMEM;
	names->text = larger;
	names->room = room;
	return 0;
}

void account_note_read(struct vessel *vessel, int fd)
{
	struct names *names = &vessel->read;
	char link[64], path[4096];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (len <= 0 || !strncmp(path, "/memfd:", 7)) /* ours, for one of /proc/self */
		return;
	path[len++] = 0;
	for (size_t at = 0; at < names->len; at += strlen(names->text + at) + 1) {
		if (!strcmp(names->text + at, path))
			return;
	}
	if (names->count >= NAMES_MAX || make_room(names, (size_t)len) < 0) {
		names->more++;
		return;
	}
	memcpy(names->text + names->len, path, (size_t)len);
	names->len += (size_t)len;
	names->count++;
}

void vessel_deinit(struct vessel *vessel)
{
	vessel_end(vessel, false);
	desk_close(&vessel->desk, NULL);
	desk_close(&vessel->past, NULL);
	notify_forget_timer(vessel);
	free(vessel->read.text);
	vessel->read = (struct names){0};
	free(vessel->out);
	vessel->out = NULL;
	vessel->out_len = vessel->out_room = 0;
}

size_t vessel_take_output(struct vessel *vessel, uint8_t *to, size_t room)
{
	size_t len = vessel->out_len < room ? vessel->out_len : room;

	memcpy(to, vessel->out, len);
	memmove(vessel->out, vessel->out + len, vessel->out_len - len);
	vessel->out_len -= len;
	vessel->out_since_ns = 0;
	return len;
}
