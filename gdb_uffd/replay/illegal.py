"""Why an instruction is illegal here that was none where the trace was made.

A program picks its variants of memcpy and the like when it starts, by the CPU that it starts on.
Rebuilt on a CPU that lacks what was picked it gets SIGILL, and should be told why.
"""

from __future__ import annotations

import functools
from typing import Callable, FrozenSet, Optional, Tuple

from gdb_uffd.arch import AARCH64, host
from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import MemoryUnavailable

_PREFIXES = frozenset(b"\x66\xf2\xf3\x2e\x36\x3e\x26\x64\x65\x67\xf0")
_LENGTH_MAX = 15  # bytes of an instruction (Intel SDM vol. 2, 2.3.11)

Need = Tuple[str, Tuple[str, ...]]
"""What an instruction belongs to, as the user knows it, and the flags of /proc/cpuinfo of which a
CPU that has it shows all."""

_AVX512: Need = "AVX-512", ("avx512f", "avx512vl", "avx512bw")
_AVX: Need = "AVX or AVX2", ("avx", "avx2")
_AVX2: Need = "AVX2, FMA or BMI", ("avx2", "fma", "bmi1", "bmi2")
_AMX: Need = "AMX", ("amx_tile",)
_SSE4: Need = "SSSE3 or SSE4", ("ssse3", "sse4_1", "sse4_2")

# Opcode maps and groups: Intel SDM vol. 2, appendix A.
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
    rest = code[at:_LENGTH_MAX]
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


_SVE: Need = "SVE", ("sve",)
_ATOMICS: Need = "LSE atomics", ("atomics",)


def needed_aarch64(code: bytes) -> Optional[Need]:
    """The same for AArch64 (Arm ARM C4.1): what the C library chooses by the CPU."""
    word = int.from_bytes(code[:4], "little")
    if word >> 25 & 0xF == 2:
        return _SVE
    atomic = word & 0x3B200C00 == 0x38200000  # LDADD, SWP, ...
    compare_and_swap = word & 0x3FA07C00 == 0x08A07C00  # CAS
    return _ATOMICS if len(code) >= 4 and (atomic or compare_and_swap) else None


@functools.lru_cache(maxsize=1)
def cpu_flags() -> FrozenSet[str]:
    """The flags of this machine's CPU in /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):  # x86-64, AArch64
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def explain(pc: int, read: Callable[[int, int], bytes], flags: FrozenSet[str]) -> Optional[End]:
    """What the user is told of the illegal instruction at `pc`; None when it is the program's own
    doing, as far as can be told."""
    code = b""
    for length in (_LENGTH_MAX, 4):  # the next page may not be there
        try:
            code = read(pc, length)
            break
        except MemoryUnavailable:
            continue
    need = (needed_aarch64 if host() is AARCH64 else needed)(code)
    if need is None or not flags:
        return None
    name, all_of = need
    lacking = [flag for flag in all_of if flag not in flags]
    if not lacking:
        return None
    what = (
        f"the instruction at {pc:#x} needs {name}, which this machine's CPU does not have "
        f"(no {', '.join(lacking)}): the program chose it for the CPU that it was started on"
    )
    return End(what, "open the trace on such a machine")
