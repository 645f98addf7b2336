/* engine_look.h - how each engine finds what was written; engine.c is the only one to ask. */
#ifndef GDB_UFFD_ENGINE_LOOK_H
#define GDB_UFFD_ENGINE_LOOK_H

#include <stdint.h>

struct engine;
struct pager;

/* Notes a write by whoever ran since the last look. */
int engine_note(struct pager *pager, uint64_t page);

/* Notes the pages written since the last look, and protects them again. */
int wp_async_look(struct pager *pager);

/* Notes the pages whose bit stands. */
int soft_dirty_look(struct pager *pager);
/* Clears every bit of the process. */
int soft_dirty_clear(struct engine *engine);
/* The page is there from now on. */
int soft_dirty_fed(struct engine *engine, uint64_t page);

/* Notes the pages whose bytes differ from those of the last look. */
int compare_look(struct pager *pager);
/* As the page is now counts as looked at. */
int compare_refresh(struct pager *pager, uint64_t page);

#endif
