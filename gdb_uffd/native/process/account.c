/* account.c - what a transaction's report tells of system calls, and the kernel state's way back. */
#define _GNU_SOURCE
#include "process/account.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/array.h"
#include "process/user.h"
#include "process/vessel.h"

const struct kernel_state *account_saved(const struct vessel *vessel)
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

void account_begin(struct vessel *vessel)
{
	forget_account(vessel);
	fd_table_share(&vessel->saved, &vessel->kernel_state);
	vessel->in_transaction = true;
	vessel->cuts = vessel->waits = 0;
	vessel->waited_ns = 0;
}

void account_end(struct vessel *vessel, bool keep)
{
	if (!vessel->in_transaction)
		return;
	vessel->in_transaction = false;
	if (keep) {
		fd_table_close(&vessel->saved, &vessel->kernel_state);
		return;
	}
	fd_table_close(&vessel->kernel_state, &vessel->saved);
	vessel->kernel_state = vessel->saved;
}

void account_forget(struct vessel *vessel)
{
	account_end(vessel, false);
	fd_table_close(&vessel->kernel_state, NULL);
	fd_table_close(&vessel->rerun, NULL);
	fd_table_init(&vessel->kernel_state, &vessel->identity);
	fd_table_init(&vessel->rerun, &vessel->identity);
	forget_account(vessel);
	vessel->out_len = 0;
}

/* With descriptors of its own. */
static void copy_state(struct kernel_state *to, const struct kernel_state *from)
{
	fd_table_close(to, NULL);
	fd_table_share(to, from);
	for (int i = 0; i < OPENED_MAX; i++) {
		struct opened *file = &to->files[i];
		if (file->kind && file->fd >= 0)
			file->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
	}
}

void account_note_rerun(struct vessel *vessel)
{
	if (vessel->in_transaction)
		copy_state(&vessel->rerun, &vessel->saved);
}

void account_copy_rerun(struct vessel *vessel, const struct vessel *other)
{
	copy_state(&vessel->kernel_state, &other->rerun);
}

void account_copy(struct vessel *vessel, const struct vessel *other)
{
	copy_state(&vessel->kernel_state, &other->kernel_state);
}

void account_note_granted(struct vessel *vessel, uint64_t nr)
{
	if (nr < RULES && !vessel->granted[nr]++)
		vessel->granted_order[vessel->granted_count++] = (uint16_t)nr;
}

void account_note_opened(struct vessel *vessel, const struct system_call *call, uint64_t path)
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
	char *text = names->count < NAMES_MAX ? array_grown(names->text, names->len, &names->room, (size_t)len, 1) : NULL;
	if (!text) {
		names->more++;
		return;
	}
	names->text = text;
	memcpy(names->text + names->len, path, (size_t)len);
	names->len += (size_t)len;
	names->count++;
}

int account_output(struct vessel *vessel, const void *bytes, uint64_t len)
{
	uint8_t *out = array_grown(vessel->out, vessel->out_len, &vessel->out_room, len, 1);

	if (!out)
		return -ENOMEM;
	vessel->out = out;
	memcpy(vessel->out + vessel->out_len, bytes, len);
	vessel->out_len += len;
	return 0;
}

size_t account_take_output(struct vessel *vessel, uint8_t *to, size_t room)
{
	size_t len = vessel->out_len < room ? vessel->out_len : room;

	memcpy(to, vessel->out, len);
	memmove(vessel->out, vessel->out + len, vessel->out_len - len);
	vessel->out_len -= len;
	vessel->out_since_ns = 0;
	return len;
}
