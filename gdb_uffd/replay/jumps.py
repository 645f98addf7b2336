"""longjmp out of a called function: seen where it begins, since nobody would come back to tell."""

from __future__ import annotations

import struct
from typing import FrozenSet, Optional, Tuple

from gdb_uffd.model import GPR, PROT_EXEC, PROT_WRITE, MemoryUnavailable, Registers
from gdb_uffd.native import ffi, lib
from gdb_uffd.replay.machine import Machine

NAMES = ("longjmp", "_longjmp", "siglongjmp", "__longjmp_chk")
PLANTED_MAX = 8  # PLANTED_MAX of native/pager.h
_POINTER_GUARD = 0x30  # offset in the TCB (glibc, sysdeps/x86_64/nptl/tcb-offsets.sym)
_RSP, _PC = 6, 7  # words of jmp_buf (glibc, sysdeps/x86_64/jmpbuf-offsets.h; musl the same)


def plant(machine: Machine) -> FrozenSet[int]:
    """Has breakpoints put on the functions when their pages are fed; their addresses."""
    found = []
    for name in NAMES:
        address = machine.snapshot.symbol(name)
        if address is not None and address not in found:
            found.append(address)
    for index, address in enumerate(found[:PLANTED_MAX]):
        machine.pager.planted[index] = address
    machine.pager.planted_count = len(found[:PLANTED_MAX])
    return frozenset(found)


def target(machine: Machine, registers: Registers) -> Optional[Tuple[int, int]]:
    """(stack pointer, instruction) that the longjmp about to be made leads to; None when the
    buffer makes no sense.  glibc mangles both (PTR_MANGLE), musl does not."""
    try:
        words = struct.unpack("<8Q", machine.read(registers.gpr[GPR["rdi"]], 64))
        base = registers.gpr[GPR["fs_base"]]
        (guard,) = struct.unpack("<Q", machine.read(base + _POINTER_GUARD, 8))
    except MemoryUnavailable:
        return None
    plain = words[_RSP], words[_PC]
    mangled = tuple(_rotate(word) ^ guard for word in plain)
    for sp, pc in (mangled, plain):
        if _allows(machine, sp, PROT_WRITE) and _allows(machine, pc, PROT_EXEC):
            return sp, pc
    return None


def _rotate(word: int) -> int:
    return (word >> 0x11 | word << (64 - 0x11)) & ((1 << 64) - 1)


def _allows(machine: Machine, address: int, prot: int) -> bool:
    region = lib.regions_find(ffi.addressof(machine.pager, "regions"), address)
    return region != ffi.NULL and bool(region.prot & prot)


def same_stack(machine: Machine, left: int, right: int) -> bool:
    """Whether both addresses lie in one stretch of writable memory."""
    table = ffi.addressof(machine.pager, "regions")
    low, high = min(left, right), max(left, right)
    region = lib.regions_find(table, low)
    while region != ffi.NULL and region.prot & PROT_WRITE:
        if high < region.end:
            return True
        region = lib.regions_find(table, region.end)
    return False
