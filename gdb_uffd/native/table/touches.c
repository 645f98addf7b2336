#include "table/touches.h"

#include <stdlib.h>

#include "kernel/arch.h"
#include "kernel/array.h"

#define IN_PAGE 0xffful

void touches_deinit(struct touches *touches)
{
	for (size_t i = 0; i < touches->count; i++)
		free(touches->at[i].callers);
	free(touches->at);
	*touches = (struct touches){0};
}

/* The fetch of an instruction: at the program counter, or at the start of the page that the
 * instruction reaches into. */
static bool is_fetch(const struct access *who, bool executable)
{
	uint64_t page = who->address & ~IN_PAGE;

	if (who->call || !executable)
		return false;
	return page == (who->pc & ~IN_PAGE) ||
	       (who->address == page && page - who->pc < LONGEST_INSTRUCTION);
}

struct touch *touches_add(struct touches *touches, uint64_t page, const struct access *who, bool write,
			  bool executable)
{
	struct touch *made = touches->count < TOUCHES_MAX ? array_add(*touches) : NULL;

	if (!made) {
		touches->missed++;
		return NULL;
	}
	*made = (struct touch){.page = page, .who = *who, .how = TOUCH_READ};
	if (write)
		made->how = TOUCH_WRITE;
	else if (is_fetch(who, executable))
		made->how = TOUCH_RUN;
	return made;
}

