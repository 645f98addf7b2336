/* pagemap_quirks.h - what the kernel's PAGEMAP_SCAN does with WP_ASYNC, for whoever wants to know. */
#ifndef GDB_UFFD_PAGEMAP_QUIRKS_H
#define GDB_UFFD_PAGEMAP_QUIRKS_H

#include "kernel/python.h"
#include "kernel/uffd.h"

PYTHON enum scan_quirk {
	/* A page never populated reads as written in the scan for PAGE_IS_WRITTEN alone. */
	SCAN_UNPOPULATED_WRITTEN = 1,
	/* A page written, then dropped, reads as clean unless PAGE_IS_WRITTEN alone is asked for
	 * (kernels before mid-2026). */
	SCAN_DROPPED_CLEAN = 2,
	/* ... and even then. */
	SCAN_DROPPED_LOST = 4,
};

/* Bits of enum scan_quirk; -errno where it cannot be tried. */
PYTHON int pagemap_quirks(const struct uffd_offer *offer);

#endif
