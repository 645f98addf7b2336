#include "table/fed.h"

#include <stdlib.h>

#include "kernel/array.h"

void fed_deinit(struct fed *fed)
{
	free(fed->at);
	*fed = (struct fed){0};
}

void fed_add(struct fed *fed, uint64_t page)
{
	uint64_t *made = fed->count < FED_MAX ? array_add(*fed) : NULL;

	if (made)
		*made = page;
	else
		fed->missed++;
}
