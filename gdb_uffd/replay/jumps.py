"""longjmp out of a called function: seen where it begins, since nobody would come back to tell."""

from __future__ import annotations

import struct
from typing import FrozenSet, Optional, Tuple

from gdb_uffd.protocol.model import PROT_EXEC, PROT_WRITE, MemoryUnavailable, Registers
from gdb_uffd.replay.lazy import Lazy
from gdb_uffd.replay.vessel import Vessel

NAMES = ("longjmp", "_longjmp", "siglongjmp", "__longjmp_chk")


def plant(vessel: Vessel, lazy: Lazy) -> FrozenSet[int]:
    """Has breakpoints put on the functions when their pages are fed; their addresses.  Also where
    calls are bound (lazy.py)."""
    found = []
    for name in NAMES:
        address = vessel.snapshot.symbol(name)
        if address is not None and address not in found:
            found.append(address)
    vessel.plant([*found, *sorted(lazy.entries)])
    return frozenset(found)


def target(vessel: Vessel, registers: Registers) -> Optional[Tuple[int, int]]:
    """(stack pointer, instruction) that the longjmp about to be made leads to; None when the
    buffer makes no sense.  glibc mangles both (PTR_MANGLE), musl does not."""
    arch = registers.arch
    jump = arch.jump
    try:
        raw = vessel.read(registers.gpr[arch.arguments[0]], 8 * jump.words)
        guard = _guard(vessel, registers)
    except MemoryUnavailable:
        return None
    words = struct.unpack(f"<{jump.words}Q", raw)
    plain = words[jump.sp], words[jump.pc]
    mangled = tuple(_rotate(word, jump.rotate) ^ guard for word in plain)
    for sp, pc in (mangled, plain):
        if vessel.regions.allows(sp, PROT_WRITE) and vessel.regions.allows(pc, PROT_EXEC):
            return sp, pc
    return None


def _guard(vessel: Vessel, registers: Registers) -> int:
    """What the words are XORed with; 0 where the C library has no such thing."""
    jump = registers.arch.jump
    if jump.guard_symbol:
        address = vessel.snapshot.symbol(jump.guard_symbol)
        if address is None:
            return 0
    else:
        address = registers.thread_pointer + jump.guard_offset
    return int.from_bytes(vessel.read(address, 8), "little")


def _rotate(word: int, bits: int) -> int:
    """To the right, of 64 bits."""
    return (word >> bits | word << (64 - bits)) & ((1 << 64) - 1)
