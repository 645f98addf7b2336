"""longjmp out of a called function: seen where it begins, since nobody would come back to tell."""

from __future__ import annotations

import struct
from typing import FrozenSet, Optional, Tuple

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import PROT_EXEC, PROT_WRITE, MemoryUnavailable, Registers
from gdb_uffd.replay.lazy import Lazy
from gdb_uffd.replay.vessel import Vessel

NAMES = ("longjmp", "_longjmp", "siglongjmp", "__longjmp_chk")
PLANTED_MAX = 8  # PLANTED_MAX of native/pager.h


def plant(vessel: Vessel) -> FrozenSet[int]:
    """Has breakpoints put on the functions when their pages are fed; their addresses.  Also where
    calls are bound (lazy.py)."""
    found = []
    for name in NAMES:
        address = vessel.snapshot.symbol(name)
        if address is not None and address not in found:
            found.append(address)
    planted = [*found, *sorted(Lazy(vessel).entries)][:PLANTED_MAX]
    for index, address in enumerate(planted):
        vessel.pager.planted[index] = address
    vessel.pager.planted_count = len(planted)
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
        if _allows(vessel, sp, PROT_WRITE) and _allows(vessel, pc, PROT_EXEC):
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


def _allows(vessel: Vessel, address: int, prot: int) -> bool:
    region = lib.regions_find(ffi.addressof(vessel.pager, "regions"), address)
    return region != ffi.NULL and bool(region.prot & prot)


def same_stack(vessel: Vessel, left: int, right: int) -> bool:
    """Whether both addresses lie in one stretch of writable memory."""
    table = ffi.addressof(vessel.pager, "regions")
    low, high = min(left, right), max(left, right)
    region = lib.regions_find(table, low)
    while region != ffi.NULL and region.prot & PROT_WRITE:
        if high < region.end:
            return True
        region = lib.regions_find(table, region.end)
    return False
