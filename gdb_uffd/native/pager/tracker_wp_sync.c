/* wp-sync: write-protection; the pager answers each first write, which waits for it. */
#include "pager/pager.h"

static int copy(struct pager *pager, uint64_t page, const void *from, bool protect)
{
	return uffd_copy_page(pager->uffd, page, from, protect);
}

const struct tracker_kind tracker_wp_sync = {
	.name = "wp-sync",
	.needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	.protects = true,
	.tells_first = true,
	.copy = copy,
};
