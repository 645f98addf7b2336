"""The PT_LOADs of a core, made safe: which memory there was, and which bytes the core holds."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.arch import RECORDED
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, page_ceil, page_floor
from gdb_uffd.trace.core.elf import PF_R, PF_W, PF_X, PT_LOAD, ElfError, ProgramHeader


@dataclass(frozen=True)
class Load:
    """Page-aligned `[start, end)` of one PT_LOAD, user memory only.

    `[start, dumped_end)` was written to the core, at file `offset`; of it `[start, have_end)`
    really is in the core file (less when that is truncated).
    """

    start: int
    end: int
    prot: int
    offset: int
    dumped_end: int
    have_end: int


@dataclass(frozen=True)
class Fringe:
    """The bytes `[start, end)` of one page, where a PT_LOAD begins or ends inside of it: the core
    holds them at file `offset`, and the rest of the page not."""

    start: int
    end: int
    offset: int


def prot_of(flags: int) -> int:
    """mmap(2) bits of p_flags (elf(5))."""
    return (1 if flags & PF_R else 0) | (2 if flags & PF_W else 0) | (4 if flags & PF_X else 0)


def make_loads(
    segments: Sequence[ProgramHeader],
    file_size: int,
    problems: List[str],
    user_end: int = RECORDED.user_end,
) -> Tuple[List[Load], List[Fringe]]:
    """Sorted and disjoint; PT_LOADs that overlap give way to the lower (earlier) one.

    The kernel maps whole pages, and so does this.  [vsyscall] and anything else beyond user memory
    is dropped: it cannot be mapped.
    """
    raw = [s for s in segments if s.type == PT_LOAD and s.memsz and s.vaddr < user_end]
    loads: List[Load] = []
    fringes: List[Fringe] = []
    position = taken = 0  # where the pages and the bytes of those before end
    for s in sorted(raw, key=lambda s: s.vaddr):  # stable: ties keep the file's order
        memory_end = min(s.vaddr + s.memsz, user_end)
        if s.vaddr < taken:
            problems.append(f"PT_LOADs overlap at {s.vaddr:#x}; the lower one counts")
        low = max(s.vaddr, taken)
        if low >= memory_end:
            continue
        high = max(low, min(s.vaddr + s.filesz, memory_end))
        have = max(low, min(high, s.vaddr + max(0, file_size - s.offset)))
        start, end = max(page_floor(s.vaddr), position), page_ceil(memory_end)
        shift = s.offset - s.vaddr
        head = page_ceil(low)
        if low < head and low < high and min(head, high) <= have:
            fringes.append(Fringe(low, min(head, high), low + shift))
        if page_floor(low) == start < head:  # nothing of its first page but what the fringe has
            stop = min(head, end)
            lost = stop if low < high and have < min(head, high) else start
            loads.append(Load(start, stop, prot_of(s.flags), start + shift, lost, start))
            start = stop
        if start < end:
            dumped_end = max(start, page_floor(high))
            if dumped_end < high:
                if high <= have:
                    fringes.append(Fringe(dumped_end, high, dumped_end + shift))
                else:
                    dumped_end = page_ceil(high)
            have_end = max(start, min(dumped_end, page_floor(have)))
            loads.append(Load(start, end, prot_of(s.flags), start + shift, dumped_end, have_end))
        position, taken = end, memory_end
    return loads, fringes


class Dumped:
    """The bytes that the core file itself holds, by address."""

    def __init__(
        self, core: mmap.mmap, loads: Sequence[Load], fringes: Sequence[Fringe] = ()
    ) -> None:
        self.core = core
        self.loads = loads
        self.fringes: Dict[int, List[Fringe]] = {}  # by page
        for fringe in fringes:
            self.fringes.setdefault(page_floor(fringe.start), []).append(fringe)
        self._starts = [load.start for load in loads]

    def load_at(self, address: int) -> Optional[Load]:
        """The PT_LOAD that contains `address`, dumped or not."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.loads[index].end:
            return self.loads[index]
        return None

    def writable(self, address: int) -> bool:
        """Whether the mapping at `address` was recorded as writable."""
        load = self.load_at(address)
        return load is not None and bool(load.prot & 2)

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes (at most 1 MiB) at `address`; ElfError unless the core holds all, in
        whole pages."""
        if not 0 <= length <= 1 << 20:
            raise ElfError(f"{length} bytes at once")
        parts: List[bytes] = []
        while length > 0:
            load = self.load_at(address)
            if load is None or address >= load.have_end:
                raise ElfError(f"{address:#x} is not in the core")
            take = min(length, load.have_end - address)
            at = load.offset + address - load.start
            parts.append(self.core[at : at + take])
            address += take
            length -= take
        return b"".join(parts)

    def fill(self, page: int, under: bytes) -> Tuple[bytes, bool]:
        """The page at address `page`, of which the core holds a part; whether it holds all.
        `under`: what the rest of it is taken for."""
        made, held = bytearray(under), 0
        for f in self.fringes[page]:
            length = f.end - f.start
            made[f.start - page : f.end - page] = self.core[f.offset : f.offset + length]
            held += length
        return bytes(made), held == PAGE_SIZE
