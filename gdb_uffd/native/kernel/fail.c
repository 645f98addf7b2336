#include "kernel/fail.h"

#include <stdio.h>
#include <string.h>

int fail(struct error *error, int code, const char *format, ...)
{
	va_list args;
	int used;

	va_start(args, format);
	used = vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof(error->text) - 3 && code > 0)
		snprintf(error->text + used, sizeof(error->text) - (size_t)used, ": %s", strerror(code));
	return -(code > 0 ? code : 5);
}
