/* refuse.c - what the report tells of a refused system call: its arguments, and what they pointed
 * to at that moment. */
#define _GNU_SOURCE
#include "syscalls/refuse.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/socket.h>

#include "process/call.h"
#include "process/user.h"
#include "process/vessel.h"

/* As much of [address, address + len) as can be read. */
static void capture_bytes(struct pager *pager, struct captured *captured, uint64_t address, uint64_t len)
{
	captured->cut = len > REFUSED_BYTES;
	if (captured->cut)
		len = REFUSED_BYTES;
	while (len && captured->len < len) {
		uint64_t at = address + captured->len;
		size_t left = (size_t)len - captured->len, part = PAGE_BYTES - (size_t)(at & (PAGE_BYTES - 1));
		if (part > left)
			part = left;
		if (user_load(pager, at, captured->bytes + captured->len, part) < 0)
			return;
		captured->len = (uint16_t)(captured->len + part);
	}
}

static void capture_string(struct pager *pager, struct captured *captured, uint64_t address)
{
	capture_bytes(pager, captured, address, REFUSED_BYTES);
	uint8_t *end = memchr(captured->bytes, 0, captured->len);
	captured->cut = !end && captured->len == REFUSED_BYTES;
	if (end)
		captured->len = (uint16_t)(end - captured->bytes);
}

static void capture_message(struct pager *pager, struct captured *captured, uint64_t address)
{
	struct msghdr message;

	if (user_load(pager, address, &message, sizeof(message)) == 0 && message.msg_name)
		capture_bytes(pager, captured, (uint64_t)message.msg_name, message.msg_namelen);
}

static bool capture(struct pager *pager, struct captured *captured, const struct rule *rule,
		    const struct system_call *call, int i)
{
	uint64_t next = i < 5 ? call->args[i + 1] : 0;

	*captured = (struct captured){.argument = (uint8_t)i};
	switch (rule->kind[i]) {
	case ARGUMENT_PATH:
		capture_string(pager, captured, call->args[i]);
		return true;
	case ARGUMENT_READ:
	case ARGUMENT_ADDRESS:
		capture_bytes(pager, captured, call->args[i], next);
		return true;
	case ARGUMENT_READ_MESSAGE:
		capture_message(pager, captured, call->args[i]);
		return true;
	default:
		return false;
	}
}

static bool same(const struct refused *left, const struct refused *right)
{
	if (left->error != right->error || left->call.nr != right->call.nr ||
	    left->call.table != right->call.table ||
	    memcmp(left->call.args, right->call.args, sizeof(left->call.args)))
		return false;
	for (int i = 0; i < 2; i++)
		if (left->memory[i].len != right->memory[i].len ||
		    memcmp(left->memory[i].bytes, right->memory[i].bytes, left->memory[i].len))
			return false;
	return true;
}

int64_t refuse_note(struct vessel *vessel, const struct system_call *call, int error)
{
	const struct rule *rule = rules_find(&vessel->policy, call);
	struct refused made = {.call = *call, .error = error, .times = 1};
	int used = 0;

	if (!call->table && call->nr < RULES && vessel->withdrawn[call->nr] < vessel->granted[call->nr])
		vessel->withdrawn[call->nr]++;
	for (int i = 0; rule && i < 6 && used < 2; i++)
		used += capture(vessel->pager, &made.memory[used], rule, call, i);
	if (used < 2)
		made.memory[used] = (struct captured){.argument = 6};
	if (used < 1)
		made.memory[1] = (struct captured){.argument = 6};
	/* A loop that tries the same again and again fills one entry, one that tries one descriptor after
	 * the other a few. */
	struct refused *alike = NULL;
	int count = 0;
	for (uint32_t i = 0; i < vessel->refused_count; i++) {
		struct refused *entry = &vessel->refused[i];
		if (same(entry, &made)) {
			entry->times++;
			return -error;
		}
		if (entry->call.nr == call->nr && entry->call.table == call->table && entry->error == error) {
			alike = entry;
			count++;
		}
	}
	if (count >= ALIKE_MAX)
		alike->others++;
	else if (vessel->refused_count < REFUSED_MAX)
		vessel->refused[vessel->refused_count++] = made;
	else
		vessel->refused_more++;
	return -error;
}

int refuse_call(struct vessel *vessel, struct registers *regs, int error)
{
	struct system_call call = call_of(regs, TABLE_OWN);

	return call_skip(vessel, regs, refuse_note(vessel, &call, error));
}

int64_t refuse_descriptor(struct vessel *vessel, const struct system_call *call, int64_t descriptor)
{
	fd_table_tell_missing(&vessel->kernel_state, descriptor);
	/* Programs close what they do not have: no need to tell of that. */
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX && call->nr != SYS_close && call->nr != SYS_fcntl)
		return refuse_note(vessel, call, EBADF);
	return -EBADF;
}
