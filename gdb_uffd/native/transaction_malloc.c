/* transaction_malloc.c - gdb's own calls of malloc, for the arguments of the call that a transaction is
 * about: what was before that call is what they left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transaction.h"
#include "uffd.h"

const struct regions *transaction_regions_at_call(const struct pager *pager)
{
	if (pager->layout_at_call)
		return &pager->at_call;
	return pager->layout_changed ? &pager->at_tx : &pager->regions;
}

int transaction_page_at_call(struct pager *pager, const struct written *w, uint8_t *to)
{
	if (!w->after_malloc || w->late)
		return transaction_page_before(pager, w, to);
	memcpy(to, w->after_malloc, PAGE_BYTES);
	return 0;
}

int transaction_begin_program(struct pager *pager)
{
	int rc = 0;

	if (pager->program_ran)
		return 0;
	if (pager->layout_changed) {
		rc = regions_copy(&pager->at_call, &pager->regions);
		pager->layout_at_call = rc == 0;
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

int transaction_gdb_wrote(struct pager *pager, struct written *w, uint64_t address,
			  const uint8_t *from, size_t len, int writer)
{
	bool settled = w->after_malloc && !w->late && pager->program_ran;

	if (writer & WRITER_MALLOC && (settled || !w->after_malloc))
		return take_after_malloc(pager, w);
	if (writer & WRITER_GDB && w->after_malloc && !settled)
		memcpy(w->after_malloc + (address - w->page), from, len);
	return 0;
}

int transaction_end_malloc(struct pager *pager)
{
	int rc = engine_settle(pager);

	for (size_t i = 0; rc == 0 && i < pager->pages.written_count; i++) {
		struct written *w = &pager->pages.written[i];
		if (w->in_tx && w->writers & WRITER_MALLOC)
			rc = take_after_malloc(pager, w);
	}
	return rc < 0 ? rc : transaction_rearm(pager);
}
