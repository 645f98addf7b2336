/* array.h - growing arrays: any structure with `at`, `count` and `room`. */
#ifndef GDB_UFFD_ARRAY_H
#define GDB_UFFD_ARRAY_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Room for `more` entries of `size` bytes behind the `count` that are there.  NULL: no memory, and `at` is as it was. */
static inline void *array_grown(void *at, size_t count, size_t *room, size_t more, size_t size)
{
	size_t wanted = *room ? *room : 16;

	if (at && *room - count >= more)
		return at;
	while (wanted - count < more || wanted == *room)
		if (__builtin_mul_overflow(wanted, 2, &wanted))
			return NULL;
	void *grown = wanted > SIZE_MAX / size ? NULL : realloc(at, wanted * size);
	if (grown)
		*room = wanted;
	return grown;
}

/* Room for `more` entries behind the last.  0 or -ENOMEM. */
#define array_reserve(array, more)                                                                                  \
	({                                                                                                          \
		void *array_at = array_grown((array).at, (array).count, &(array).room, (more), sizeof(*(array).at)); \
		if (array_at)                                                                                       \
			(array).at = array_at;                                                                      \
		array_at ? 0 : -ENOMEM;                                                                             \
	})

/* A pointer to one more entry, whose bytes are to be set; NULL: no memory. */
#define array_add(array) (array_reserve(array, 1) < 0 ? NULL : &(array).at[(array).count++])

#endif
