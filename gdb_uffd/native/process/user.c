#define _GNU_SOURCE
#include "process/user.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pager/feed.h"
#include "pager/memory.h"
#include "pager/note.h"
#include "process/vessel.h"

#define VECTOR_MAX 1024    /* UIO_MAXIOV */
#define PREPARED_MAX (64ul << 20) /* bytes of one buffer that are made present; the kernel's call is cut short behind */
#define STRING_STEP 256 /* names are short */
#define FRAME_BYTES 32768ul /* a signal frame with the largest extended state (AMX: 11 KiB), and the red zone */

static uint64_t page_of(uint64_t address)
{
	return address & ~(PAGE_BYTES - 1);
}

/* How many bytes from `address` on lie in its page, at most `len`. */
static size_t in_page(uint64_t address, size_t len)
{
	size_t left = PAGE_BYTES - (size_t)(address - page_of(address));

	return left < len ? left : len;
}

static bool allows(const struct pager *pager, uint64_t address, int prot)
{
	const struct region *region = regions_find(&pager->regions, address);

	return region && region->kind != REGION_UNAVAILABLE && (region->prot & prot);
}

/* What an answered system call touches, nobody faults on: it is listed here, and the page fed, so
 * that it is listed once. */
static void list_touch(struct pager *pager, uint64_t page, bool write)
{
	const struct page_slot *slot = pages_find(&pager->pages, page);
	const struct region *region = regions_find(&pager->regions, page);
	struct access who = {.address = page, .tid = (uint32_t)pager->vessel};

	if (!pager->touches.on || !pager->running || (slot && slot->present) || !region ||
	    region->kind == REGION_UNAVAILABLE || region->kind == REGION_NATIVE)
		return;
	note_access(pager, &who);
	note_touch(pager, region, &who, write);
	feed_for_call(pager, page);
}

int user_load(struct pager *pager, uint64_t address, void *to, size_t len)
{
	size_t done;

	for (size_t at = 0; at < len; at += in_page(address + at, len - at))
		if (!allows(pager, address + at, 1 | 4))
			return -EFAULT;
		else
			list_touch(pager, page_of(address + at), false);
	return memory_read(pager, address, to, len, &done) < 0 ? -EFAULT : 0;
}

int user_load_string(struct pager *pager, uint64_t address, char *to, size_t room)
{
	for (size_t at = 0; at < room;) {
		size_t part = in_page(address + at, room - at < STRING_STEP ? room - at : STRING_STEP);
		if (user_load(pager, address + at, to + at, part) < 0)
			return -EFAULT;
		char *end = memchr(to + at, 0, part);
		if (end)
			return (int)(end - to);
		at += part;
	}
	return -ENAMETOOLONG;
}

/* The page is there, noted as written by the program, and open to writes.  Where writes are found
 * afterwards, these will be as well. */
static int open_page(struct pager *pager, uint64_t page)
{
	const struct region *region = regions_find(&pager->regions, page);
	struct written *w = pages_written(&pager->pages, page);
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;

	if (region->kind == REGION_NATIVE)
		return 0;
	if (!tracker_tells_first(&pager->tracker)) {
		list_touch(pager, page, true);
		return feed_has_room(pager, page) ? feed_for_call(pager, page) : -ENOMEM;
	}
	if (w && w->in_tx && !w->armed && (w->writers & writer) && pages_find(&pager->pages, page)->present)
		return 0;
	if (!feed_has_room(pager, page))
		return -ENOMEM;
	struct access who = {.address = page, .tid = (uint32_t)pager->vessel};
	note_access(pager, &who);
	list_touch(pager, page, true);
	int rc = feed_missing(pager, page);
	if (rc < 0)
		return rc;
	w = note_write(pager, page, writer, &who);
	if (!w)
		return -ENOMEM;
	pages_set_own(&pager->pages, pages_find(&pager->pages, page));
	rc = uffd_protect(pager->uffd, page, PAGE_BYTES, false);
	w->armed = rc < 0;
	return rc;
}

int user_store(struct pager *pager, uint64_t address, const void *from, size_t len)
{
	const uint8_t *bytes = from;

	while (len) {
		size_t part = in_page(address, len);
		if (!allows(pager, address, 2) || open_page(pager, page_of(address)) < 0 ||
		    pwrite(pager->mem_fd, bytes, part, (off_t)address) != (ssize_t)part)
			return -EFAULT;
		address += part;
		bytes += part;
		len -= part;
	}
	return 0;
}

void user_make_present(struct pager *pager, uint64_t address, uint64_t len, bool written)
{
	uint64_t end = address + len;

	if (!len || end < address)
		return;
	if (len > PREPARED_MAX)
		end = address + PREPARED_MAX;
	for (uint64_t page = page_of(address); page < end; page += PAGE_BYTES) {
		if (!allows(pager, page, written ? 2 : 1 | 4))
			return;
		if (!feed_has_room(pager, page) ||
		    (written ? open_page(pager, page) : feed_for_call(pager, page)) < 0)
			return;
	}
}

static void prepare_string(struct pager *pager, uint64_t address)
{
	char text[4096];

	if (user_load_string(pager, address, text, sizeof(text)) != -EFAULT)
		user_make_present(pager, address, strnlen(text, sizeof(text)) + 1, false);
}

static void prepare_vector(struct pager *pager, uint64_t address, uint64_t count, bool written)
{
	struct iovec one;

	if (count > VECTOR_MAX)
		return;
	user_make_present(pager, address, count * sizeof(one), false);
	for (uint64_t i = 0; i < count; i++)
		if (user_load(pager, address + i * sizeof(one), &one, sizeof(one)) == 0)
			user_make_present(pager, (uint64_t)one.iov_base, one.iov_len, written);
}

static void prepare_message(struct pager *pager, uint64_t address, bool written)
{
	struct msghdr message;

	user_make_present(pager, address, sizeof(message), written);
	if (user_load(pager, address, &message, sizeof(message)) < 0)
		return;
	user_make_present(pager, (uint64_t)message.msg_name, message.msg_namelen, written);
	user_make_present(pager, (uint64_t)message.msg_control, message.msg_controllen, written);
	prepare_vector(pager, (uint64_t)message.msg_iov, message.msg_iovlen, written);
}

static void prepare_argument(struct pager *pager, const struct rule *rule, const struct system_call *call,
			     int i)
{
	uint64_t at = call->args[i], next = i < 5 ? call->args[i + 1] : 0;
	uint32_t len;

	switch (rule->kind[i]) {
	case ARGUMENT_PATH:
		prepare_string(pager, at);
		break;
	case ARGUMENT_READ:
	case ARGUMENT_ADDRESS:
		user_make_present(pager, at, next, false);
		break;
	case ARGUMENT_WRITE:
		user_make_present(pager, at, next, true);
		break;
	case ARGUMENT_WRITE_ADDRESS:
		user_make_present(pager, next, sizeof(len), true);
		if (user_load(pager, next, &len, sizeof(len)) == 0)
			user_make_present(pager, at, len, true);
		break;
	case ARGUMENT_READ_VECTOR:
	case ARGUMENT_WRITE_VECTOR:
		prepare_vector(pager, at, next, rule->kind[i] == ARGUMENT_WRITE_VECTOR);
		break;
	case ARGUMENT_READ_MESSAGE:
	case ARGUMENT_WRITE_MESSAGE:
		prepare_message(pager, at, rule->kind[i] == ARGUMENT_WRITE_MESSAGE);
		break;
	case ARGUMENT_READ_FIXED:
		user_make_present(pager, at, rule->size[i], false);
		break;
	case ARGUMENT_WRITE_FIXED:
	case ARGUMENT_BOTH_FIXED:
		user_make_present(pager, at, rule->size[i], true);
		break;
	}
}

void user_prepare(struct vessel *vessel, const struct system_call *call)
{
	const struct rule *rule = rules_find(&vessel->policy, call);

	if (!vessel->pager->user_mode_only || !rule)
		return;
	if (call->nr == SYS_rt_sigreturn)
		user_prepare_stack(vessel);
	if (call->nr == SYS_futex) {
		user_make_present(vessel->pager, call->args[0], 4, (call->args[1] & 0x7f) > FUTEX_REQUEUE);
		user_make_present(vessel->pager, call->args[4], 4, (call->args[1] & 0x7f) > FUTEX_REQUEUE);
	}
	for (int i = 0; i < 6; i++)
		if (rule->kind[i] && call->args[i])
			prepare_argument(vessel->pager, rule, call, i);
}

void user_prepare_stack(struct vessel *vessel)
{
	struct access who = {0};
	struct pager *pager = vessel->pager;

	if (!pager->user_mode_only)
		return;
	note_access(pager, &who);
	user_make_present(pager, page_of(who.sp), FRAME_BYTES, true);
	/* Downwards, as far as there is a stack. */
	for (uint64_t page = page_of(who.sp); page + FRAME_BYTES > who.sp; page -= PAGE_BYTES) {
		if (!allows(pager, page, 2) || open_page(pager, page) < 0)
			break;
	}
	if (vessel->alternate_size)
		user_make_present(pager, vessel->alternate_stack, vessel->alternate_size, true);
}
