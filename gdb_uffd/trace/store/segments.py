"""From a snapshot's layout and page table to the segments of source.Snapshot."""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from typing import Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, Mapping, page_ceil, page_floor
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.core.mappings import NO_VVAR, file_segments, past_the_end
from gdb_uffd.trace.core.notes import FileRange
from gdb_uffd.trace.files.executable import Found
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.snapshot import Memory
from gdb_uffd.trace.source import FILE, PAGES, UNAVAILABLE, ZERO, Segment
from gdb_uffd.trace.store.page_read import BadPage, PageData
from gdb_uffd.trace.store.page_table import PageTable

NOT_RECORDED = "was not recorded"


def file_ranges(mappings: Sequence[Mapping]) -> List[FileRange]:
    """The file mappings."""
    return [FileRange(m.start, m.end, m.offset, m.name) for m in mappings if m.name.startswith("/")]


def build(
    mappings: Sequence[Mapping],
    table: PageTable,
    found: Found,
    pages: PageData,
    unknown: Sequence[Tuple[int, int]] = (),
) -> Memory:
    """Segments that cover `mappings`: recorded pages win over the file's, and memory
    that was neither recorded nor mapped from a file was never touched, or is `unknown`."""
    owner = {r.start: m for m in found.modules for r in m.ranges}
    segments: List[Segment] = []
    out: List[Mapping] = []
    for m in mappings:
        made: List[Segment] = []
        position = m.start
        for area in table.overlapping(m.start, m.end):
            start, end = max(area.start, m.start), min(area.end, m.end)
            if position < start:
                made += _unrecorded(m, position, start, owner.get(m.start), pages)
            if area.slots is None:
                made.append(Segment(start, end, m.prot, ZERO))
            else:
                first = (start - area.start) // PAGE_SIZE
                slots = memoryview(area.slots)[first : first + (end - start) // PAGE_SIZE]
                made.append(
                    Segment(start, end, m.prot, PAGES, pages.data, slots=slots, sums=pages.sums)
                )
            position = end
        if position < m.end:
            made += _unrecorded(m, position, m.end, owner.get(m.start), pages)
        reason = next((s.reason for s in made if s.kind == UNAVAILABLE), "")
        name = printable(m.name)
        module = owner.get(m.start)
        if module is not None and module is found.main:
            name = printable(module.path)
        if (name, reason) != (m.name, m.unavailable):
            m = dataclasses.replace(m, name=name, unavailable=reason)
        out.append(m)
        segments += made
    return Memory(out, list(_marked(segments, unknown)) if unknown else segments)


def _marked(segments: Sequence[Segment], unknown: Sequence[Tuple[int, int]]) -> Iterator[Segment]:
    """The same, parted where what is unknown begins and ends."""
    starts = [start for start, _ in unknown]
    for s in segments:
        position = s.start
        while position < s.end:
            index = bisect.bisect_right(starts, position)
            until = unknown[index - 1][1] if index else 0
            within = position < until
            following = starts[index] if index < len(starts) else s.end
            end = min(s.end, until if within else following)
            yield dataclasses.replace(
                _part(s, position, end), unknown=within and s.kind != UNAVAILABLE
            )
            position = end


def _part(s: Segment, start: int, end: int) -> Segment:
    if (start, end) == (s.start, s.end):
        return s
    first = (start - s.start) // PAGE_SIZE
    slots = s.slots[first : first + (end - start) // PAGE_SIZE] if s.kind == PAGES else s.slots
    offset = s.offset + start - s.start if s.kind == FILE else s.offset
    return dataclasses.replace(s, start=start, end=end, offset=offset, slots=slots)


def _unrecorded(
    m: Mapping, start: int, end: int, module: Optional[Module], pages: PageData
) -> List[Segment]:
    if m.unavailable:
        return [Segment(start, end, m.prot, UNAVAILABLE, reason=m.unavailable)]
    if m.name.startswith("/"):
        if module is not None and module.slots is not None:
            return _stored(m, start, end, module.slots, pages)
        where = FileRange(m.start, m.end, m.offset, m.name)
        return file_segments(module, where, start, end, m.prot)
    if m.name.startswith("[vvar"):
        return [Segment(start, end, m.prot, UNAVAILABLE, reason=NO_VVAR)]
    if m.name == "" or m.name in ("[heap]", "[stack]") or m.name.startswith(("[anon", "[stack:")):
        return [Segment(start, end, m.prot, ZERO)]
    reason = f"{printable(m.name)}: {NOT_RECORDED}"
    return [Segment(start, end, m.prot, UNAVAILABLE, reason=reason)]


def _stored(
    m: Mapping, start: int, end: int, slots: "array[int]", pages: PageData
) -> List[Segment]:
    """A mapping of a file that the trace holds."""
    first = (m.offset + start - m.start) // PAGE_SIZE
    inside = min(end, start + max(0, len(slots) - first) * PAGE_SIZE)
    made: List[Segment] = []
    if start < inside:
        part = memoryview(slots)[first : first + (inside - start) // PAGE_SIZE]
        made.append(Segment(start, inside, m.prot, PAGES, pages.data, slots=part, sums=pages.sums))
    if inside < end:
        reason = past_the_end(printable(m.name))
        made.append(Segment(inside, end, m.prot, UNAVAILABLE, reason=reason, beyond=True))
    return made


def named_range(mappings: Sequence[Mapping], name: str, above: int = 0) -> Tuple[int, int]:
    """From the first to the last writable mapping of that name, from `above` on; (0, 0)
    without one."""
    found = [m for m in mappings if m.name == name and m.prot & PROT_WRITE and m.end > above]
    return (max(found[0].start, above), found[-1].end) if found else (0, 0)


class RecordedPages:
    """The recorded pages of one snapshot, for what examines files: executable.Recorded."""

    def __init__(self, mappings: Sequence[Mapping], table: PageTable, pages: PageData) -> None:
        self._table, self._pages = table, pages
        self._writable = {m.start for m in mappings if m.prot & PROT_WRITE}

    def read(self, address: int, length: int) -> bytes:
        """`length` recorded bytes (at most 1 MiB); ElfError unless all are in the page file."""
        if not 0 <= length <= 1 << 20:
            raise ElfError(f"{length} bytes at once")
        first = page_floor(address)
        parts = [self._page(at) for at in range(first, page_ceil(address + length), PAGE_SIZE)]
        return b"".join(parts)[address - first : address - first + length]

    def _page(self, address: int) -> bytes:
        slot = self._table.slot(address)
        if slot is None:
            raise ElfError(f"{address:#x} is not in the trace")
        try:
            return self._pages.read([slot])
        except BadPage as bad:
            raise ElfError(f"{address:#x}: {bad.reason}") from bad

    def writable(self, address: int) -> bool:
        """Whether the mapping that starts at `address` was recorded as writable."""
        return address in self._writable
