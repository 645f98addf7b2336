#ifdef __aarch64__
#include <string.h>

#include "kernel/arch.h"

/* BL; BLR and its forms with authentication, BLRAA to BLRABZ (Arm ARM C4.1, "Branches"). */
int arch_call_before(const uint8_t *code, uint64_t behind, uint64_t *target)
{
	uint32_t instruction;

	memcpy(&instruction, code, sizeof(instruction));
	if ((instruction & 0xfc000000) == 0x94000000) {
		int64_t words = (int32_t)(instruction << 6) >> 6;
		*target = behind - 4 + (uint64_t)(words * 4);
		return CALL_DIRECT;
	}
	return (instruction & 0xfefff000) == 0xd63f0000 ? CALL_INDIRECT : CALL_NONE;
}

/* Not told: a caller may stand in the link register, which nobody can see. */
uint64_t arch_stub_slot(const uint8_t *code, uint64_t at)
{
	(void)code;
	(void)at;
	return 0;
}

bool arch_is_unbound(const uint8_t *code)
{
	(void)code;
	return false;
}

size_t arch_prologue_before(const uint8_t *code, size_t len)
{
	(void)code;
	(void)len;
	return 0;
}

bool arch_prologue(const uint8_t *code, size_t len, uint64_t *depth)
{
	(void)code;
	(void)len;
	*depth = 0;
	return false;
}

#endif
