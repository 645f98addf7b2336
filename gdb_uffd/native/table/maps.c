#define _GNU_SOURCE
#include "table/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/array.h"

int maps_keep(struct maps *maps, void *at, size_t len)
{
	struct file_map *made = array_add(*maps);

	if (!made) {
		munmap(at, len);
		return -ENOMEM;
	}
	*made = (struct file_map){at, len, true};
	return 0;
}

void maps_drop(struct maps *maps, bool all)
{
	size_t kept = 0;

	for (size_t i = 0; i < maps->count; i++) {
		if (all || maps->at[i].in_tx)
			munmap(maps->at[i].at, maps->at[i].len);
		else
			maps->at[kept++] = maps->at[i];
	}
	maps->count = kept;
}

void maps_commit(struct maps *maps)
{
	for (size_t i = 0; i < maps->count; i++)
		maps->at[i].in_tx = false;
}

void maps_deinit(struct maps *maps)
{
	maps_drop(maps, true);
	free(maps->at);
	*maps = (struct maps){0};
}
