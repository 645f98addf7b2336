"""The native region tables of one vessel: filled from the snapshot's segments, and looked up."""

from __future__ import annotations

import bisect
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, UffdError
from gdb_uffd.replay import holes
from gdb_uffd.replay.stacks import Room
from gdb_uffd.trace.files.files import is_shared
from gdb_uffd.trace.source import (
    FILE,
    PAGES,
    SLOT_UNAVAILABLE,
    UNAVAILABLE,
    ZERO,
    Segment,
    Snapshot,
    bad_page,
)

LOWEST_ADDRESS = 1 << 16
"""vm.mmap_min_addr's default: below it nothing is mapped in the vessel, whatever a core says."""

Range = Tuple[int, int]

_KINDS = {
    FILE: lib.REGION_BYTES,
    ZERO: lib.REGION_ZERO,
    PAGES: lib.REGION_PAGES,
    UNAVAILABLE: lib.REGION_UNAVAILABLE,
}


class Regions:
    """The address space as it is now.  Iterating gives each `struct region`, sorted."""

    def __init__(self, pager: Any, snapshot: Snapshot, rooms: Sequence[Room]) -> None:
        self._pager = pager
        self._snapshot = snapshot
        self._now = ffi.addressof(pager, "regions")
        self._recorded = ffi.addressof(pager, "recorded")
        self._keep: Dict[int, Any] = {}  # buffers that C points into
        self._stores: Dict[Tuple[int, int], Any] = {}
        self._holes_marked = False
        self._add(rooms)

    def __iter__(self) -> Iterator[Any]:
        return (self._now.at[i] for i in range(self._now.count))

    # -- filled -------------------------------------------------------------------------------

    def _add(self, rooms: Sequence[Room]) -> None:
        region = ffi.new("struct region *")
        files = [m for m in self._snapshot.mappings if m.name.startswith("/")]
        starts = [m.start for m in files]
        for segment in self._snapshot.segments:
            if segment.start < LOWEST_ADDRESS:
                continue
            self._fill(region, segment)
            index = bisect.bisect_right(starts, segment.start) - 1
            if index >= 0 and segment.start < files[index].end:
                shared = is_shared(files[index].name)
                region.flags |= lib.REGION_SHARED if shared else lib.REGION_FILE
            check(lib.regions_set(self._recorded, region), doing="region table")
        for room in rooms:
            self._fill(region, Segment(room.start, room.end, room.prot, ZERO))
            region.flags = lib.REGION_GROWTH
            check(lib.regions_set(self._recorded, region), doing="region table")
        check(lib.regions_copy(self._now, self._recorded))

    def _fill(self, region: Any, segment: Segment) -> None:
        length = segment.end - segment.start
        region.start, region.end, region.prot = segment.start, segment.end, segment.prot
        region.kind, region.flags = _KINDS[segment.kind], 0
        region.bytes, region.bytes_len = ffi.NULL, 0
        region.store, region.slots = ffi.NULL, ffi.NULL
        if segment.unknown:
            region.flags |= lib.REGION_UNKNOWN
        if segment.beyond:
            region.flags |= lib.REGION_BEYOND
        if segment.patch is not None:
            patch = ffi.new("uint8_t[]", segment.patch)
            self._keep[id(patch)] = patch
            region.bytes, region.bytes_len = patch, min(len(segment.patch), length)
            region.kind = lib.REGION_BYTES
        elif segment.kind == PAGES:
            if len(segment.slots) < length // PAGE_SIZE:
                raise UffdError(f"{self._snapshot.path}: too few slots for {segment.start:#x}")
            region.store = self.store(segment)
            region.slots = self._buffer(segment.slots, "uint32_t")
        elif segment.kind == FILE and segment.data is not None:
            buffer = self._buffer(segment.data, "uint8_t")
            inside = max(0, min(length, segment.data_end - segment.offset))
            region.bytes, region.bytes_len = buffer + segment.offset, inside

    def _buffer(self, data: Any, kind: str) -> Any:
        """`data` for C, which may use it as long as this object lives (cffi keeps a reference)."""
        buffer = self._keep.get(id(data))
        if buffer is None:
            buffer = self._keep[id(data)] = ffi.from_buffer(f"{kind}[]", data)
        return buffer

    def store(self, segment: Segment) -> Any:
        """The page file that a PAGES segment lies in, for C."""
        key = (id(segment.data), id(segment.sums))
        if key not in self._stores:
            pages = self._buffer(segment.data, "uint8_t")
            sums = self._buffer(segment.sums, "uint32_t")
            store = self._stores[key] = ffi.new("struct page_store *")
            lib.page_store_init(store, pages, len(pages), sums, ffi.sizeof(sums))
        return self._stores[key]

    def mark_holes(self) -> None:
        """Pages that are holes of their file are zeros from now on (holes.py).  To be called before
        the first process is made; once is enough."""
        if self._holes_marked:
            return
        self._holes_marked = True
        for start, end in holes.ranges(self._snapshot.segments, self._address, LOWEST_ADDRESS):
            for table in (self._recorded, self._now):
                region = ffi.new("struct region *", lib.regions_find(table, start)[0])
                region.start, region.end, region.kind = start, end, lib.REGION_ZERO
                region.bytes, region.bytes_len = ffi.NULL, 0
                check(lib.regions_set(table, region), doing="region table")

    def _address(self, data: Any) -> int:
        return int(ffi.cast("uintptr_t", self._buffer(data, "uint8_t")))

    def close(self) -> None:
        """Let go of the buffers; nothing native may use them any more."""
        for buffer in self._keep.values():
            if ffi.typeof(buffer).kind == "array":
                ffi.release(buffer)
        self._keep.clear()

    # -- looked up ----------------------------------------------------------------------------

    def find(self, address: int) -> Optional[Any]:
        """The `struct region` that holds the byte; None where the program has no memory."""
        region = lib.regions_find(self._now, address)
        return region if region != ffi.NULL else None

    def is_mapped(self, address: int) -> bool:
        """Whether the program has memory there now, be its bytes to be had or not."""
        return self.find(address) is not None

    def is_beyond(self, address: int) -> bool:
        """Whether a file is mapped there that ends before."""
        region = self.find(address)
        return region is not None and bool(region.flags & lib.REGION_BEYOND)

    def allows(self, address: int, prot: int) -> bool:
        """Whether the program has memory there now with one of these PROT_ bits."""
        region = self.find(address)
        return region is not None and bool(region.prot & prot)

    def is_writable_throughout(self, start: int, end: int) -> bool:
        """Whether all of [start, end] lies in one stretch of writable memory."""
        region = self.find(start)
        while region is not None and region.prot & PROT_WRITE:
            if end < region.end:
                return True
            region = self.find(region.end)
        return False

    def why(self, address: int) -> str:
        """Why the byte at `address` cannot be had: the segment's reason, or "" if it can."""
        for segment in self._snapshot.segments:
            if segment.start <= address < segment.end:
                if segment.kind == UNAVAILABLE:
                    return segment.reason
                if segment.kind == PAGES:
                    return self._why_not_stored(segment, address)
                if self._pager.lost_page and address & -PAGE_SIZE == self._pager.lost_page:
                    return f"{self._snapshot.path} or a file it names was cut short while in use"
                return ""
        return ""

    def _why_not_stored(self, segment: Segment, address: int) -> str:
        slot = segment.slots[(address - segment.start) // PAGE_SIZE]
        if slot == SLOT_UNAVAILABLE:
            return "could not be read when it was recorded"
        store = self.store(segment)
        if slot and lib.page_store_read(store, slot, ffi.new("uint8_t[]", PAGE_SIZE)) < 0:
            return bad_page(self._snapshot.path, slot)
        return ""

    @property
    def changed(self) -> bool:
        """Whether the transaction that is open, or was last, mapped or unmapped anything."""
        return bool(self._pager.mappings_changed)

    def covered(self, only: int = 0) -> List[Range]:
        """The address ranges that are mapped now (with a flag `only`), joined."""
        return _covered(self._now, only)

    def covered_at_begin(self) -> List[Range]:
        """The same as that transaction began; only where it changed anything."""
        return _covered(self._pager.at_tx)

    def covered_at_call(self) -> Optional[List[Range]]:
        """The same as its first function began; None where that was no other."""
        return _covered(self._pager.at_call) if self._pager.mappings_at_call else None


def _covered(table: Any, only: int = 0) -> List[Range]:
    out: List[Range] = []
    for i in range(table.count):
        region = table.at[i]
        if region.flags & lib.REGION_GROWTH or (only and not region.flags & only):
            continue
        if out and out[-1][1] == region.start:
            out[-1] = (out[-1][0], region.end)
        else:
            out.append((region.start, region.end))
    return out
