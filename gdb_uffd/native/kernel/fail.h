/* fail.h - how the native part reports: 0 or -errno, and one line of text. */
#ifndef GDB_UFFD_FAIL_H
#define GDB_UFFD_FAIL_H

#include <stdarg.h>

#include "kernel/python.h"

PYTHON struct error {
	char text[256];
};

/* Writes the text and returns -code, so that callers can `return fail(...)`. */
int fail(struct error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
