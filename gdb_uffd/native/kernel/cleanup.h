/* cleanup.h - what a variable holds is given back at the end of its block. */
#ifndef GDB_UFFD_CLEANUP_H
#define GDB_UFFD_CLEANUP_H

#include <stdio.h>
#include <unistd.h>

static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE *const *file)
{
	if (*file)
		fclose(*file);
}

#define CLOSED __attribute__((cleanup(cleanup_close)))  /* a descriptor; negative: none */
#define FCLOSED __attribute__((cleanup(cleanup_fclose))) /* a FILE *; NULL: none */

#endif
