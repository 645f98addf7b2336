"""Why an instruction is illegal here that was none where the trace was made.

A program picks its variants of memcpy and the like when it starts, by the CPU that it starts on.
Rebuilt on a CPU that lacks what was picked it gets SIGILL, and should be told why.
"""

from __future__ import annotations

import functools
from typing import Callable, FrozenSet, Optional

from gdb_uffd.arch import Architecture
from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import MemoryUnavailable

_LENGTH_MAX = 15  # bytes of an instruction (Intel SDM vol. 2, 2.3.11)


@functools.lru_cache(maxsize=1)
def cpu_flags() -> FrozenSet[str]:
    """The flags of this machine's CPU in /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):  # its name depends on the processor
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def explain(
    arch: Architecture, pc: int, read: Callable[[int, int], bytes], flags: FrozenSet[str]
) -> Optional[End]:
    """What the illegal instruction at `pc` needs and `flags` have not; None when it is the
    program's own doing, as far as can be told."""
    code = b""
    for length in (_LENGTH_MAX, 4):  # the next page may not be there
        try:
            code = read(pc, length)
            break
        except MemoryUnavailable:
            continue
    need = arch.needed(code)
    if need is None or not flags:
        return None
    name, all_of = need
    lacking = tuple(flag for flag in all_of if flag not in flags)
    return End("instruction", address=pc, needs=name, lacking=lacking) if lacking else None
