/* gdb.h - what gdb itself does to memory for the call that a transaction is about. */
#ifndef GDB_UFFD_GDB_H
#define GDB_UFFD_GDB_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

struct pager;

/* Something other than gdb's own malloc is about to run: what was before it is this, from now on. */
PYTHON int gdb_begin_program(struct pager *pager);
/* gdb's own call of malloc is over: what the program changes on its pages counts from here. */
PYTHON int gdb_end_malloc(struct pager *pager);
/* As memory_write, of a frame, an argument or an assignment. */
PYTHON int gdb_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer);

#endif
