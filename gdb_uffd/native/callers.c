#include "callers.h"

#define LONGEST_CALL 7

/* E8 rel32, or FF /2 in its forms of 2 to 7 bytes (Intel SDM vol. 2, CALL). */
static bool ends_a_call(const uint8_t *code)
{
	static const int lengths[] = {2, 3, 4, 6, 7};

	if (code[LONGEST_CALL - 5] == 0xe8)
		return true;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		const uint8_t *call = code + LONGEST_CALL - lengths[i];
		if (call[0] == 0xff && (call[1] >> 3 & 7) == 2)
			return true;
	}
	return false;
}

size_t callers_find(struct pager *pager, const uint64_t *stack, size_t words, uint64_t *callers,
		    size_t room)
{
	uint8_t code[LONGEST_CALL];
	size_t found = 0, done;

	for (size_t i = 0; i < words && found < room; i++) {
		const struct region *region = regions_find(&pager->regions, stack[i]);
		if (!region || !(region->prot & 4) || stack[i] < LONGEST_CALL)
			continue;
		if (pager_read(pager, stack[i] - LONGEST_CALL, code, sizeof(code), &done) == 0 &&
		    ends_a_call(code))
			callers[found++] = stack[i];
	}
	return found;
}
