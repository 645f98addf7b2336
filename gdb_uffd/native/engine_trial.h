/* engine_trial.h - whether an engine works on this kernel, found out by using it. */
#ifndef GDB_UFFD_ENGINE_TRIAL_H
#define GDB_UFFD_ENGINE_TRIAL_H

#include "error.h"
#include "uffd.h"

/* A vessel of a few pages, each used in another way (never touched, read, written, read then
 * written, without bytes of its own, written then dropped, moved); two transactions, the first kept,
 * the second undone.  0 when the engine named exactly the pages that were written and the bytes are
 * right; else -errno and what was wrong. */
int engine_trial(int kind, const struct uffd_offer *offer, struct error *error);

/* What the kernel's PAGEMAP_SCAN does with WP_ASYNC, for whoever wants to know (bits of the result;
 * -errno where it cannot be tried). */
enum scan_quirk {
	/* A page never populated reads as written in the scan for PAGE_IS_WRITTEN alone. */
	SCAN_UNPOPULATED_WRITTEN = 1,
	/* A page written, then dropped, reads as clean unless PAGE_IS_WRITTEN alone is asked for
	 * (kernels before mid-2026). */
	SCAN_DROPPED_CLEAN = 2,
	/* ... and even then. */
	SCAN_DROPPED_LOST = 4,
};
int engine_scan_quirks(const struct uffd_offer *offer);

#endif
