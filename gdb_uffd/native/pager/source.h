/* source.h - where the bytes of a page come from: what was recorded, the vessel, or what was kept of how it was. */
#ifndef GDB_UFFD_SOURCE_H
#define GDB_UFFD_SOURCE_H

#include <stddef.h>
#include <stdint.h>

struct pager;
struct regions;
struct written;

/* Copies a page's bytes from a source that a hostile file may cut short: -EFAULT, never SIGBUS. */
int source_copy(void *to, const void *from, size_t len);
/* The page as `regions` has it; zeros where nothing was mapped. */
int source_page(const struct regions *regions, uint64_t page, uint8_t *to);
/* The page as it is in the vessel, breakpoints masked. */
int source_vessel(struct pager *pager, uint64_t page, uint8_t *to);
/* What lies beneath the inserted breakpoints in `bytes`, which were read at `address`. */
void source_mask(const struct pager *pager, uint64_t address, uint8_t *bytes, size_t len);
/* The page as it was when the transaction began. */
int source_before(struct pager *pager, const struct written *w, uint8_t *to);

#endif
