#ifdef __x86_64__
#include <string.h>

#include "kernel/arch.h"

static uint64_t displaced(const uint8_t *code, uint64_t behind)
{
	int32_t by;

	memcpy(&by, code, sizeof(by));
	return behind + (uint64_t)(int64_t)by;
}

/* The bytes of an instruction of one opcode byte that has a ModRM byte (Intel SDM vol. 2, 2.1.3 to 2.1.5). */
static int length_of(const uint8_t *code)
{
	int mod = code[1] >> 6, rm = code[1] & 7, sib = mod != 3 && rm == 4;
	bool wide = mod == 2 || (mod == 0 && (rm == 5 || (sib && (code[2] & 7) == 5)));

	return 2 + sib + (wide ? 4 : mod == 1);
}

/* E8 rel32, or FF /2 in its forms of 2 to 7 bytes (Intel SDM vol. 2, CALL). */
int arch_call_before(const uint8_t *code, uint64_t behind, uint64_t *target)
{
	static const int lengths[] = {2, 3, 4, 6, 7};

	if (code[LONGEST_CALL - 5] == 0xe8) {
		*target = displaced(code + LONGEST_CALL - 4, behind);
		return CALL_DIRECT;
	}
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint8_t call[3] = {0};
		memcpy(call, code + LONGEST_CALL - lengths[i], lengths[i] < 3 ? 2 : 3);
		if (call[0] == 0xff && (call[1] >> 3 & 7) == 2 && length_of(call) == lengths[i])
			return CALL_INDIRECT;
	}
	return CALL_NONE;
}

/* Behind endbr64, which may be missing. */
static size_t behind_mark(const uint8_t *code)
{
	static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};

	return memcmp(code, endbr64, sizeof(endbr64)) ? 0 : sizeof(endbr64);
}

/* [endbr64;] [bnd] jmp *slot(%rip) (psABI, 5.2). */
uint64_t arch_stub_slot(const uint8_t *code, uint64_t at)
{
	size_t skip = behind_mark(code);

	skip += code[skip] == 0xf2;
	if (code[skip] != 0xff || code[skip + 1] != 0x25)
		return 0;
	return displaced(code + skip + 2, at + skip + 6);
}

/* [endbr64;] push $index */
bool arch_is_unbound(const uint8_t *code)
{
	return code[behind_mark(code)] == 0x68;
}

/* push %rbp; mov %rsp,%rbp */
static bool is_frame(const uint8_t *code)
{
	return code[0] == 0x55 && code[1] == 0x48 &&
	       ((code[2] == 0x89 && code[3] == 0xe5) || (code[2] == 0x8b && code[3] == 0xec));
}

size_t arch_prologue_before(const uint8_t *code, size_t len)
{
	for (size_t back = 4; back <= len; back++) {
		const uint8_t *at = code + len - back;
		if ((at[0] == 0xc9 || at[0] == 0x5d) && at[1] == 0xc3) /* leave, or pop %rbp; ret */
			return 0;
		if (is_frame(at))
			return len - back >= 4 && behind_mark(at - 4) ? back + 4 : back;
	}
	return 0;
}

/* [endbr64;] push %rbp; mov %rsp,%rbp; then pushes, and sub $N,%rsp. */
bool arch_prologue(const uint8_t *code, size_t len, uint64_t *depth)
{
	size_t at = len < 4 ? 0 : behind_mark(code);

	*depth = 0;
	if (len < at + 4 || !is_frame(code + at))
		return false;
	for (at += 4; at < len; *depth += 8) {
		size_t wide = code[at] == 0x41;
		if (at + wide >= len || (code[at + wide] & 0xf8) != 0x50)
			break;
		at += wide + 1;
	}
	if (len - at >= 4 && code[at] == 0x48 && code[at + 1] == 0x83 && code[at + 2] == 0xec)
		*depth += (uint64_t)(int8_t)code[at + 3];
	else if (len - at >= 7 && code[at] == 0x48 && code[at + 1] == 0x81 && code[at + 2] == 0xec)
		*depth += displaced(code + at + 3, 0);
	return true;
}

#endif
