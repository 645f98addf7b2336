#include "touch.h"

#include <stdlib.h>

#include "arch.h"

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
	if (touches->count == touches->room) {
		size_t room = touches->room ? touches->room * 2 : 1024;
		struct touch *at = NULL;
		if (touches->count < TOUCHES_MAX)
			at = realloc(touches->at, room * sizeof(*at));
		if (!at) {
			touches->missed++;
			return NULL;
		}
		touches->at = at;
		touches->room = room;
	}
	struct touch *made = &touches->at[touches->count++];
	*made = (struct touch){.page = page, .who = *who, .how = TOUCH_READ};
	if (write)
		made->how = TOUCH_WRITE;
	else if (is_fetch(who, executable))
		made->how = TOUCH_RUN;
	return made;
}

void fed_deinit(struct fed *fed)
{
	free(fed->at);
	*fed = (struct fed){0};
}

void fed_add(struct fed *fed, uint64_t page)
{
	if (fed->count == fed->room) {
		size_t room = fed->room ? fed->room * 2 : 1024;
		uint64_t *at = fed->count < FED_MAX ? realloc(fed->at, room * sizeof(*at)) : NULL;
		if (!at) {
			fed->missed++;
			return;
		}
		fed->at = at;
		fed->room = room;
	}
	fed->at[fed->count++] = page;
}
