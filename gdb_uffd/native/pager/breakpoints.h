/* breakpoints.h - breakpoint instructions in the vessel's code; the vessel is stopped. */
#ifndef GDB_UFFD_BREAKPOINTS_H
#define GDB_UFFD_BREAKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/python.h"

struct pager;

PYTHON int breakpoint_insert(struct pager *pager, uint64_t address);
PYTHON int breakpoint_remove(struct pager *pager, uint64_t address);
/* Takes a planted one out, and puts it in again. */
PYTHON int breakpoint_put(struct pager *pager, uint64_t address, bool in);

#endif
