/* answer_memory.c - what the program asks of its memory and leaves as it is; and getrandom(2), for some of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "process/user.h"
#include "syscalls/answer.h"

#define RESIDENT_MAX (16ul << 20) /* pages that one mincore(2) tells of: 64 GiB */

/* All mapped pages count as resident: what is not fed yet is no business of the program's. */
static int64_t mincore_(struct vessel *vessel, const struct system_call *call)
{
	uint64_t at = call->args[0], pages = (call->args[1] + PAGE_BYTES - 1) / PAGE_BYTES, to = call->args[2];
	uint8_t resident[PAGE_BYTES];

	memset(resident, 1, sizeof(resident));
	if (at % PAGE_BYTES)
		return -EINVAL;
	if (pages > RESIDENT_MAX)
		return -EAGAIN; /* "the kernel is temporarily out of resources" (mincore(2)) */
	while (pages) {
		const struct region *region = regions_find(&vessel->pager->regions, at);
		uint64_t part = pages < sizeof(resident) ? pages : sizeof(resident);
		if (!region)
			return -ENOMEM;
		if (part > (region->end - at) / PAGE_BYTES)
			part = (region->end - at) / PAGE_BYTES;
		if (user_store(vessel->pager, to, resident, part) < 0)
			return -EFAULT;
		at += part * PAGE_BYTES;
		to += part;
		pages -= part;
	}
	return 0;
}

/* Private memory has nothing to write back. */
static int64_t msync_(struct vessel *vessel, const struct system_call *call)
{
	uint64_t end = call->args[0] + call->args[1];

	for (uint64_t at = call->args[0]; at < end;) {
		const struct region *region = regions_find(&vessel->pager->regions, at);
		if (!region)
			return -ENOMEM;
		at = region->end;
	}
	return call->args[0] % PAGE_BYTES ? -EINVAL : 0;
}

int64_t answer_memory(struct vessel *vessel, const struct system_call *call)
{
	switch (call->nr) {
	case SYS_mincore:
		return mincore_(vessel, call);
	case SYS_msync:
		return msync_(vessel, call);
	case SYS_getrandom: /* no record knows it: the report is to tell of it */
		return ANSWER_LET;
	default:
		return ANSWER_NOT_MINE;
	}
}
