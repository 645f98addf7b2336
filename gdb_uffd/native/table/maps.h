/* maps.h - our own mappings of files that the program mapped; regions point into them. */
#ifndef GDB_UFFD_MAPS_H
#define GDB_UFFD_MAPS_H

#include <stdbool.h>
#include <stddef.h>

struct file_map {
	void *at;
	size_t len;
	bool in_tx;
};

struct maps {
	struct file_map *at;
	size_t count, room;
};

/* Takes over a mapping; on failure it is unmapped. */
int maps_keep(struct maps *maps, void *at, size_t len);
/* Unmaps those of the open transaction (`all`: every one). */
void maps_drop(struct maps *maps, bool all);
/* The open transaction's are kept like the others from now on. */
void maps_commit(struct maps *maps);
void maps_deinit(struct maps *maps);

#endif
