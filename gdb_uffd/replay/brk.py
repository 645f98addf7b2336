"""The program's break, brk(2): where its heap begins and ends, as far as a recording tells."""

from __future__ import annotations

from typing import Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, MemoryUnavailable, page_ceil
from gdb_uffd.trace.source import Snapshot


def recorded_brk(snapshot: Snapshot) -> Tuple[int, int]:
    """(start of the heap, current break); (0, 0) where the break is not known.

    glibc keeps the break in `__curbrk`; before the first malloc there is no heap mapping,
    and both are the same.
    """
    # After fork() the child's heap may grow in a mapping of its own.
    heap = [m for m in snapshot.mappings if m.name == "[heap]"]
    start, end = (heap[0].start, heap[-1].end) if heap else (0, 0)
    address = snapshot.symbol("__curbrk")
    current = 0
    if address is not None:
        try:
            current = int.from_bytes(snapshot.read(address, 8), "little")
        except MemoryUnavailable:
            current = 0
    if start:
        return start, current if start <= current <= end else end
    if not current:
        current = _behind_the_program(snapshot)
    if current and not any(m.start < page_ceil(current) <= m.end for m in snapshot.mappings):
        return current, current
    return 0, 0


def _behind_the_program(snapshot: Snapshot) -> int:
    """Where a heap can begin of which the program never asked: behind its .bss, as the kernel
    places it (fs/binfmt_elf.c, set_brk).  0 when the program's mappings are not known."""
    end = 0
    for mapping in snapshot.mappings:
        program = snapshot.main is not None and snapshot.main.holds(mapping.start)
        bss = end == mapping.start and not mapping.name and mapping.prot & PROT_WRITE
        if program or bss:
            end = mapping.end
    return end + PAGE_SIZE if end else 0
