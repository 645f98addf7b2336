/* fed.h - which pages were fed, in order. */
#ifndef GDB_UFFD_FED_H
#define GDB_UFFD_FED_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

#define FED_MAX 4000000 /* 15 GiB of pages; `missed` counts the others */

PYTHON struct fed {
	uint64_t *at; /* page addresses */
	size_t count, room, missed;
};

void fed_deinit(struct fed *fed);
void fed_add(struct fed *fed, uint64_t page);

#endif
