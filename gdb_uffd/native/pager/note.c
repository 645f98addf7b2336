/* note.c - who touched which page: what the report tells is written down here. */
#define _GNU_SOURCE
#include "pager/note.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pager/callers.h"
#include "pager/pager.h"
#include "pager/source.h"

/* The instruction and the stack pointer of the sleeping thread.  Documented in proc_pid_syscall(5):
 * "-1 SP PC" outside a system call, "NR A0 .. A5 SP PC" inside one. */
void note_access(struct pager *pager, struct access *who)
{
	char text[256];
	ssize_t got = pread(pager->syscall_fd, text, sizeof(text) - 1, 0);

	who->tid = (uint32_t)pager->vessel;
	if (got <= 0)
		return;
	text[got] = 0;
	char *last = strrchr(text, ' ');
	if (!last)
		return;
	long number = strtol(text, NULL, 10);
	who->call = number < 0 ? 0 : (uint32_t)number + 1;
	who->pc = strtoull(last + 1, NULL, 16);
	*last = 0;
	char *before = strrchr(text, ' ');
	if (before)
		who->sp = strtoull(before + 1, NULL, 16);
}

static int take_overlay(const struct pager *pager, const struct written *w, uint8_t *to)
{
	memcpy(to, w->overlay, PAGE_BYTES);
	source_mask(pager, w->page, to, PAGE_BYTES);
	return 0;
}

struct written *note_write(struct pager *pager, uint64_t page, int writer, const struct access *who)
{
	struct written *w = pages_make_written(&pager->pages, page);

	pager->note_error = -ENOMEM;
	if (!w)
		return NULL;
	if (!w->in_tx) {
		if (w->dirty) {
			if (!w->before && !(w->before = malloc(PAGE_BYTES)))
				return NULL;
			int rc;
			/* The others come too late for that: it is written already. */
			if (tracker_tells_first(&pager->tracker) && pages_find(&pager->pages, page)->present)
				rc = source_vessel(pager, page, w->before);
			else if (w->overlay)
				rc = take_overlay(pager, w, w->before);
			else
				rc = source_page(&pager->regions, page, w->before);
			if (rc < 0) {
				pager->note_error = rc;
				return NULL;
			}
		}
		w->in_tx = true;
		w->was_dirty = w->dirty;
		w->writers = 0;
		w->first = (struct access){0};
	}
	w->dirty = true;
	w->writers |= (uint8_t)writer;
	if (writer == WRITER_PROGRAM) {
		if (!w->first.tid) {
			w->first = *who;
			callers_keep(&pager->code, who, &w->callers);
		}
		if (!w->first_ever.tid)
			w->first_ever = *who;
	}
	return w;
}

void note_touch(struct pager *pager, const struct region *region, const struct access *who, bool write)
{
	struct touch *touch = touches_add(&pager->touches, who->address & ~(PAGE_BYTES - 1), who, write,
					  region->prot & PROT_EXEC);

	if (!touch)
		return;
	touch->recorded = !(region->flags & (REGION_BORN | REGION_GROWTH));
	callers_keep(&pager->code, who, &touch->callers);
}

int note_collected(struct pager *pager, uint64_t page)
{
	struct access nobody = {0};
	int writer = pager->in_malloc ? WRITER_MALLOC : WRITER_PROGRAM;

	return note_write(pager, page, writer, &nobody) ? 0 : -ENOMEM;
}
