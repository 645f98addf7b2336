"""What an instruction needs of a CPU.  Opcode maps and groups: Intel SDM vol. 2, appendix A."""

from __future__ import annotations

from typing import Optional

from gdb_uffd.arch.interface import Need

_PREFIXES = frozenset(b"\x66\xf2\xf3\x2e\x36\x3e\x26\x64\x65\x67\xf0")
LENGTH_MAX = 15  # bytes of an instruction (Intel SDM vol. 2, 2.3.11)

_AVX512: Need = "AVX-512", ("avx512f", "avx512vl", "avx512bw")
_AVX: Need = "AVX or AVX2", ("avx", "avx2")
_AVX2: Need = "AVX2, FMA or BMI", ("avx2", "fma", "bmi1", "bmi2")
_AMX: Need = "AMX", ("amx_tile",)
_SSE4: Need = "SSSE3 or SSE4", ("ssse3", "sse4_1", "sse4_2")

_AMX_OPCODES = frozenset((0x49, 0x4B, 0x5C, 0x5E, 0x6C))  # in VEX map 2
_OPMASK_OPCODES = frozenset((*range(0x41, 0x4C), *range(0x90, 0x94), 0x98, 0x99))  # in map 1
_GROUP_9 = {4: ("XSAVEC", ("xsavec",)), 5: ("XSAVES", ("xsaves",)), 3: ("XSAVES", ("xsaves",)),
            6: ("RDRAND", ("rdrand",)), 7: ("RDSEED", ("rdseed",))}  # fmt: skip
_GROUP_15 = {4: ("XSAVE", ("xsave",)), 5: ("XSAVE", ("xsave",)), 6: ("XSAVEOPT", ("xsaveopt",))}
_TWO_BYTES = {0xB8: ("POPCNT", ("popcnt",)), 0xBC: ("BMI", ("bmi1",)), 0xBD: ("LZCNT", ("abm",)),
              0x38: _SSE4, 0x3A: _SSE4}  # fmt: skip


def needed(code: bytes) -> Optional[Need]:
    """What the instruction that begins `code` needs of a CPU; None where that is nothing special,
    or is not known."""
    at = 0
    while at < len(code) and (code[at] in _PREFIXES):
        at += 1
    if at < len(code) and 0x40 <= code[at] <= 0x4F:  # REX
        at += 1
    rest = code[at:LENGTH_MAX]
    if len(rest) < 4:
        return None
    first = rest[0]
    if first == 0x62:  # EVEX
        return _AVX512
    if first == 0xC5:  # two-byte VEX: map 1
        return _AVX512 if rest[2] in _OPMASK_OPCODES else _AVX
    if first == 0xC4:  # three-byte VEX: its second byte ends with the map
        if rest[1] & 0x1F == 1:
            return _AVX512 if rest[3] in _OPMASK_OPCODES else _AVX
        return _AMX if rest[1] & 0x1F == 2 and rest[3] in _AMX_OPCODES else _AVX2
    if first != 0x0F:
        return None
    group = rest[2] >> 3 & 7
    if rest[1] == 0xC7:
        return _GROUP_9.get(group)
    if rest[1] == 0xAE and rest[2] < 0xC0:
        return _GROUP_15.get(group)
    if rest[1] in (0xB8, 0xBC, 0xBD) and b"\xf3" not in code[:at]:
        return None
    return _TWO_BYTES.get(rest[1])
