#include "effects/heap_refs.h"

#include <string.h>

/* The range that holds `value`, or `count`. */
static size_t range_of(uint64_t value, const uint64_t *starts, const uint64_t *ends, size_t count)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (starts[middle] <= value)
			low = middle + 1;
		else
			high = middle;
	}
	return low && value < ends[low - 1] ? low - 1 : count;
}

size_t heap_refs_find(struct view *view, uint64_t start, uint64_t end, const uint64_t *starts,
		      const uint64_t *ends, size_t count, struct heap_ref *out, size_t room, uint64_t *next,
		      uint64_t *lost)
{
	uint64_t lowest = count ? starts[0] : 0, span = count ? ends[count - 1] - lowest : 0;
	size_t found = 0;

	*lost = 0;
	for (uint64_t at = start & -8ul; at < end;) {
		uint64_t page = at & -(uint64_t)PAGE_BYTES, stop = page + PAGE_BYTES;
		const uint8_t *bytes = view_page(view, page);
		if (stop > end)
			stop = end;
		if (!bytes) {
			++*lost;
			at = stop;
			continue;
		}
		for (; at < stop; at += 8) {
			uint64_t value;
			memcpy(&value, bytes + (at - page), sizeof(value));
			if (value - lowest >= span)
				continue;
			size_t wanted = range_of(value, starts, ends, count);
			if (wanted == count)
				continue;
			if (found == room) {
				*next = at;
				return found;
			}
			out[found++] = (struct heap_ref){at, value, (uint32_t)wanted};
		}
	}
	*next = end;
	return found;
}
