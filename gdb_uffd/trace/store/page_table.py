"""Where each recorded page of one snapshot lies: address -> slot of the page file.

A table is a sorted list of disjoint areas.  An area is dense (an array of slots, one a page) or
empty (only zeros: its array is not made until a page of it is stored).  Tables that follow each
other share the arrays that no page changed in.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import field
from itertools import compress
from operator import ne
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.trace.core.notes import USER_END
from gdb_uffd.trace.source import SLOT_ZERO

CHUNK = 4096 * PAGE_SIZE
"""Bytes (16 MiB) of an empty area that become dense together when a page of it is stored."""

MAX_TABLE_PAGES = 1 << 28
"""Pages of one table at most (1 TiB): its blob must stay under SQLite's limit of 10^9 bytes."""

_COUNTS = struct.Struct("<4I")


class TableError(Exception):
    """A page table that is not what docs/trace-format.md says; the text says what is wrong."""


@dataclass(frozen=True)
class PageArea:
    """Pages `[start, end)`; `slots` has one entry a page, None: all SLOT_ZERO."""

    start: int
    end: int
    slots: Optional["array[int]"]


@dataclass
class Delta:
    """How a table differs from the one before; applied in the order of the fields.

    `forget`: `[start, end)` no longer recorded.  `areas`: new or replaced ones, sorted.
    `pages`, `slots`: single pages of areas that stay, sorted by address.
    """

    forget: List[Tuple[int, int]] = field(default_factory=list)
    areas: List[PageArea] = field(default_factory=list)
    pages: "array[int]" = field(default_factory=lambda: array("Q"))
    slots: "array[int]" = field(default_factory=lambda: array("I"))

    def encode(self) -> bytes:
        """The blob of docs/trace-format.md, "Page tables"."""
        empty = [a for a in self.areas if a.slots is None]
        dense = [a for a in self.areas if a.slots is not None]
        parts = [_COUNTS.pack(len(self.forget), len(empty), len(dense), len(self.pages))]
        for ranges in (self.forget, [(a.start, a.end) for a in empty + dense]):
            parts.append(array("Q", [x for pair in ranges for x in pair]).tobytes())
        parts.append(self.pages.tobytes())
        parts += [a.slots.tobytes() for a in dense if a.slots is not None]
        parts.append(self.slots.tobytes())
        return b"".join(parts)

    @classmethod
    def decode(cls, blob: bytes) -> "Delta":
        """What `encode` made; TableError for anything else."""
        if len(blob) < _COUNTS.size:
            raise TableError("a page table without its header")
        forgotten, empty, dense, updates = _COUNTS.unpack_from(blob)
        words = 2 * (forgotten + empty + dense) + updates
        slots_at = _COUNTS.size + 8 * words
        if slots_at + 4 * updates > len(blob):
            raise TableError("a page table shorter than its header says")
        numbers = array("Q", blob[_COUNTS.size : slots_at])
        slots = array("I", blob[slots_at : len(blob) - (len(blob) - slots_at) % 4])
        pairs = list(zip(*[iter(numbers[: words - updates])] * 2))
        for start, end in pairs:
            if start % PAGE_SIZE or end % PAGE_SIZE or not start < end <= USER_END:
                raise TableError(f"an impossible range {start:#x}-{end:#x} in a page table")
        out = cls(forget=pairs[:forgotten])
        at = 0
        for index, (start, end) in enumerate(pairs[forgotten:]):
            count = (end - start) // PAGE_SIZE
            if index < empty:
                out.areas.append(PageArea(start, end, None))
                continue
            out.areas.append(PageArea(start, end, slots[at : at + count]))
            at += count
        out.areas.sort(key=lambda a: a.start)
        if at + updates != len(slots) or (len(blob) - slots_at) % 4:
            raise TableError("a page table whose size is not what its header says")
        if any(a.end > b.start for a, b in zip(out.areas, out.areas[1:])):
            raise TableError("overlapping areas in a page table")
        out.pages, out.slots = numbers[words - updates :], slots[at:]
        if not _page_addresses(out.pages):
            raise TableError("page addresses of a page table out of order")
        return out


def _page_addresses(numbers: "array[int]") -> bool:
    """Whether `numbers` are addresses of pages, each once, sorted."""
    raw = numbers.tobytes()
    # The low twelve bits of little-endian words: all of the first byte, half of the second.
    aligned = raw[::8].count(0) == len(numbers) and not any(x & 15 for x in {*raw[1::8]})
    return aligned and sorted({*numbers}) == numbers.tolist()


class PageTable:
    """Areas by address.  `copy` is cheap; a copy clones an array when it first writes to it."""

    def __init__(self) -> None:
        self.starts: List[int] = []
        self.areas: List[PageArea] = []
        self._own: Dict[int, array[int]] = {}  # by id: the arrays that no other table has

    def copy(self) -> "PageTable":
        """An independent table; from now on neither owns an array."""
        other = PageTable()
        other.starts, other.areas = list(self.starts), list(self.areas)
        self._own.clear()
        return other

    def __iter__(self) -> Iterator[PageArea]:
        return iter(self.areas)

    @property
    def pages(self) -> int:
        """Pages of dense areas: what a keyframe of it holds."""
        return sum(len(a.slots) for a in self.areas if a.slots is not None)

    def index_at(self, address: int) -> int:
        """Index of the area that contains `address`, or -1."""
        index = bisect_right(self.starts, address) - 1
        return index if index >= 0 and address < self.areas[index].end else -1

    def slot(self, address: int) -> Optional[int]:
        """The slot of the page at `address` (page-aligned); None where nothing is recorded."""
        index = self.index_at(address)
        if index < 0:
            return None
        area = self.areas[index]
        return SLOT_ZERO if area.slots is None else area.slots[(address - area.start) // PAGE_SIZE]

    def overlapping(self, start: int, end: int) -> List[PageArea]:
        """The areas that have pages in `[start, end)`, sorted."""
        first = max(0, bisect_right(self.starts, start) - 1)
        found = []
        for area in self.areas[first : bisect_left(self.starts, end)]:
            if area.end > start:
                found.append(area)
        return found

    def forget(self, start: int, end: int) -> None:
        """`[start, end)` is no longer recorded; areas that reach over it are cut."""
        low = max(0, bisect_right(self.starts, start) - 1)
        high = bisect_left(self.starts, end)
        kept: List[PageArea] = []
        for area in self.areas[low:high]:
            for piece in (cut(area, area.start, start), cut(area, end, area.end)):
                if piece is not None:
                    kept.append(piece)
                    if piece.slots is not area.slots and piece.slots is not None:
                        self._own[id(piece.slots)] = piece.slots
        self._replace(low, high, kept)

    def add(self, area: PageArea) -> None:
        """A new area; it replaces what was recorded there."""
        self.forget(area.start, area.end)
        at = bisect_left(self.starts, area.start)
        self._replace(at, at, [area])

    def _replace(self, low: int, high: int, areas: List[PageArea]) -> None:
        self.areas[low:high] = areas
        self.starts[low:high] = [a.start for a in areas]

    def writable(self, index: int) -> "array[int]":
        """The slots of the dense area `index`, made this table's own."""
        area = self.areas[index]
        slots = area.slots
        if slots is None:
            raise ValueError("an empty area has no slots")
        if id(slots) not in self._own:
            slots = slots[:]
            self._own[id(slots)] = slots
            self.areas[index] = PageArea(area.start, area.end, slots)
        return slots

    def apply(self, delta: Delta) -> None:
        """Make it the next snapshot's; TableError when a page lies in no dense area."""
        for start, end in delta.forget:
            self.forget(start, end)
        for area in delta.areas:
            self.add(area)
        if self.pages > MAX_TABLE_PAGES:
            raise TableError(f"a page table of {self.pages} pages, more than {MAX_TABLE_PAGES}")
        at = 0
        while at < len(delta.pages):
            index = self.index_at(delta.pages[at])
            if index < 0 or self.areas[index].slots is None:
                raise TableError(f"page {delta.pages[at]:#x} of a page table lies in no area")
            slots, start = self.writable(index), self.areas[index].start
            stop = bisect_left(delta.pages, self.areas[index].end, at)
            for page, slot in zip(delta.pages[at:stop], delta.slots[at:stop]):
                slots[(page - start) >> 12] = slot
            at = stop

    def keyframe(self) -> Delta:
        """The whole table as a delta to the empty one; neighbours are joined first."""
        groups: List[List[PageArea]] = []
        for area in self.areas:
            last = groups[-1][-1] if groups else None
            together = last is not None and last.end == area.start
            if last is not None and together and (last.slots is None) == (area.slots is None):
                groups[-1].append(area)
            else:
                groups.append([area])
        joined = [_join(group) for group in groups]
        self.areas, self.starts = joined, [a.start for a in joined]
        self._own.clear()
        return Delta(areas=list(joined))


def _join(areas: Sequence[PageArea]) -> PageArea:
    """One area of neighbours that are all dense or all empty."""
    if len(areas) == 1 or areas[0].slots is None:
        return PageArea(areas[0].start, areas[-1].end, areas[0].slots)
    slots = array("I")
    for area in areas:
        slots.extend(area.slots or ())
    return PageArea(areas[0].start, areas[-1].end, slots)


def cut(area: PageArea, start: int, end: int) -> Optional[PageArea]:
    """The part of `area` in `[start, end)`, None when there is none."""
    start, end = max(area.start, start), min(area.end, end)
    if start >= end:
        return None
    if area.slots is None or (start, end) == (area.start, area.end):
        return PageArea(start, end, area.slots)
    first = (start - area.start) // PAGE_SIZE
    return PageArea(start, end, area.slots[first : first + (end - start) // PAGE_SIZE])


def differing(a: Sequence[int], b: Sequence[int]) -> List[int]:
    """Indices at which two sequences of slots of the same length differ."""
    if a == b:
        return []
    return list(compress(range(len(a)), map(ne, a, b)))


def zeros(count: int) -> "array[int]":
    """Slots of `count` pages of zeros."""
    return array("I", [SLOT_ZERO]) * count
