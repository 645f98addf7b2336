/* breakpoints.h - breakpoint instructions in the vessel's code; the vessel is stopped. */
#ifndef GDB_UFFD_BREAKPOINTS_H
#define GDB_UFFD_BREAKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

struct pager;

int breakpoint_insert(struct pager *pager, uint64_t address);
int breakpoint_remove(struct pager *pager, uint64_t address);
/* Takes a planted one out, and puts it in again. */
int breakpoint_plant(struct pager *pager, uint64_t address, bool in);

#endif
