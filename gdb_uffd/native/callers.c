#include "callers.h"

#include "arch.h"

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
		    arch_ends_a_call(code))
			callers[found++] = stack[i];
	}
	return found;
}
