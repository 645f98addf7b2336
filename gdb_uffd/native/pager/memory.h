/* memory.h - the debugger's own reads and writes; the vessel is stopped. */
#ifndef GDB_UFFD_MEMORY_H
#define GDB_UFFD_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/python.h"

struct pager;

/* Memory as it is now; `done` out: how many bytes are there from `address` on. */
PYTHON int memory_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done);
/* A write by gdb, through any protection. */
int memory_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer);
/* One stretch inside a page, which is noted as written. */
int memory_poke(struct pager *pager, uint64_t address, const uint8_t *from, size_t len);
/* The page is there.  But while touches are listed, gdb's own writes feed nothing: they wait in the
 * page's kept contents, so that the program's first touch is seen. */
int memory_make_writable(struct pager *pager, uint64_t page);

#endif
