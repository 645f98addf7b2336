/* walk.h - a path is walked through one name at a time, so that nothing on the way is set off. */
#ifndef GDB_UFFD_WALK_H
#define GDB_UFFD_WALK_H

#include <stdint.h>

#define PATH_BYTES 4096 /* PATH_MAX (<linux/limits.h>) */

/* An O_PATH descriptor of what openat2(2) would find at `path` with `flags` (O_NOFOLLOW, O_DIRECTORY) and `resolve`
 * (RESOLVE_*), but that no magic link is followed and no automounter is asked; or a negative errno.  -EREMOTE: the
 * way leads through a magic link, or into what an automounter would have to mount first. */
int walk(int from, const char *path, uint64_t flags, uint64_t resolve);

#endif
