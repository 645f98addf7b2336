/* lookup.h - what a path of the program's stands for. */
#ifndef GDB_UFFD_LOOKUP_H
#define GDB_UFFD_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "process/vessel.h"
#include "kernel/walk.h"

#define RESOLVE_KNOWN (RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT)

struct found {
	int fd;        /* O_PATH, or a file of ours that stands in for one of /proc/self; -1: `info` is made up */
	bool own;      /* ... such a stand-in */
	bool borrowed; /* the descriptor stays the kernel state's */
	struct stat info;
};

/* `flags`: O_NOFOLLOW, O_DIRECTORY; `resolve`: as openat2(2) has it.  0, with the descriptor the caller's;
 * or the error that the program is to see, noted where it is a refusal. */
int lookup(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t address,
	   uint64_t flags, uint64_t resolve, struct found *found);
/* For stat and its like: `at` flags, the descriptor itself where the path is empty.  enum opened_kind
 * (lookup_release follows), or the error. */
int lookup_at(struct vessel *vessel, const struct system_call *call, int64_t base, uint64_t path, uint64_t at,
	      struct found *found);
void lookup_release(const struct found *found);

/* The rest of the path behind /proc/self/ or its like, or NULL. */
const char *lookup_own_part(const struct vessel *vessel, const char *path);

#endif
