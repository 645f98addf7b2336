/* gdb.c - what gdb itself does to memory for the call that a transaction is about: frames, arguments, and its
 * own calls of malloc for them.  What was before that call is what they left. */
#include "effects/gdb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "effects/transaction.h"
#include "pager/memory.h"

int gdb_begin_program(struct pager *pager)
{
	int rc = 0;

	if (pager->program_ran)
		return 0;
	if (pager->mappings_changed) {
		rc = regions_copy(&pager->at_call, &pager->regions);
		pager->mappings_at_call = rc == 0;
	}
	pager->program_ran = rc == 0;
	return rc;
}

/* How gdb's own malloc left a page; whoever ran before it has no part in that. */
static int take_after_malloc(struct pager *pager, struct written *w)
{
	bool settled = w->after_malloc && !w->late && pager->program_ran;

	w->assigned_first |= !w->after_malloc && w->writers & WRITER_ASSIGNMENT;
	w->counts_malloc |= settled || w->assigned_first || w->writers & WRITER_PROGRAM;
	if (settled || w->writers & WRITER_PROGRAM)
		return 0;
	if (!w->after_malloc && !(w->after_malloc = malloc(PAGE_BYTES)))
		return -ENOMEM;
	w->late = pager->program_ran;
	int rc = transaction_page_now(pager, w, w->after_malloc);
	return rc == -ENOENT ? 0 : rc;
}

/* gdb wrote an argument there, into the room that its malloc made: that is not the program's doing. */
static int wrote(struct pager *pager, struct written *w, uint64_t address, const uint8_t *from, size_t len, int writer)
{
	bool settled = w->after_malloc && !w->late && pager->program_ran;

	if (writer & WRITER_MALLOC && (settled || !w->after_malloc))
		return take_after_malloc(pager, w);
	if (writer & WRITER_GDB && w->after_malloc && !settled)
		memcpy(w->after_malloc + (address - w->page), from, len);
	return 0;
}

int gdb_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer)
{
	int rc = 0;

	while (rc == 0 && len) {
		uint64_t page = address & ~(PAGE_BYTES - 1);
		size_t part = PAGE_BYTES - (size_t)(address - page);
		if (part > len)
			part = len;
		rc = memory_write(pager, address, from, part, writer);
		struct written *w = rc == 0 ? pages_written(&pager->pages, page) : NULL;
		if (w)
			rc = wrote(pager, w, address, from, part, writer);
		address += part;
		from += part;
		len -= part;
	}
	return rc;
}

int gdb_end_malloc(struct pager *pager)
{
	int rc = tracker_sync(pager);

	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (w->in_tx && w->writers & WRITER_MALLOC)
			rc = take_after_malloc(pager, w);
	}
	return rc < 0 ? rc : transaction_rearm(pager);
}
