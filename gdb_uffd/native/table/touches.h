/* touches.h - who touched each page first, where that is asked for. */
#ifndef GDB_UFFD_TOUCHES_H
#define GDB_UFFD_TOUCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"
#include "table/pages.h"

PYTHON enum touch_how { TOUCH_READ = 0, TOUCH_WRITE = 1, TOUCH_RUN = 2 };

PYTHON struct touch {
	uint64_t page;
	struct access who;
	uint64_t *callers; /* then: callers.h; or NULL */
	uint8_t how;      /* enum touch_how */
	bool recorded;    /* fed from what was recorded; else new memory */
};

/* A list that holds so many grows no more; `missed` counts the others. */
#define TOUCHES_MAX 100000

PYTHON struct touches {
	bool on;
	struct touch *at;
	size_t count, room, missed;
};

void touches_deinit(struct touches *touches);
/* Pager side.  What there is no memory for is counted as missed. */
struct touch *touches_add(struct touches *touches, uint64_t page, const struct access *who, bool write,
			  bool executable);

#endif
