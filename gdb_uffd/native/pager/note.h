/* note.h - who touched which page. */
#ifndef GDB_UFFD_NOTE_H
#define GDB_UFFD_NOTE_H

#include <stdbool.h>
#include <stdint.h>

struct access;
struct pager;
struct region;
struct written;

/* Fills in who is in a fault or a system call: PC and SP of the vessel, which sleeps there. */
void note_access(struct pager *pager, struct access *who);
/* Notes a write to a page in the open transaction, taking the before-image first. */
struct written *note_write(struct pager *pager, uint64_t page, int writer, const struct access *who);
/* A tracker found it written, by whoever ran since it looked last. */
int note_collected(struct pager *pager, uint64_t page);
/* Lists the first touch of a page that is about to be fed. */
void note_touch(struct pager *pager, const struct region *region, const struct access *who, bool write);

#endif
