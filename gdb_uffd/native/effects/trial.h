/* trial.h - whether a tracker works on this kernel, found out by using it. */
#ifndef GDB_UFFD_TRIAL_H
#define GDB_UFFD_TRIAL_H

#include "kernel/fail.h"
#include "kernel/python.h"
#include "kernel/uffd.h"
#include "pager/tracker.h"

/* A vessel of a few pages, each used in another way (never touched, read, written, read then
 * written, without bytes of its own, written then dropped, moved); two transactions, the first kept,
 * the second undone.  0 when the tracker named exactly the pages that were written and the bytes are
 * right; else -errno and what was wrong. */
PYTHON int trial_run(const struct tracker_kind *kind, const struct uffd_offer *offer, struct error *error);

#endif
