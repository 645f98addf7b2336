"""A snapshot while it is being written: what changed since the one before."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    SnapshotInfo,
    ThreadState,
    UffdError,
    page_ceil,
    page_floor,
)
from gdb_uffd.trace.core.facts import ProcessFacts, encode_facts
from gdb_uffd.trace.source import SLOT_UNAVAILABLE, SLOT_ZERO
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.page_table import (
    CHUNK,
    Delta,
    PageArea,
    PageTable,
    cut,
    differing,
    zeros,
)

if TYPE_CHECKING:
    from gdb_uffd.trace.store.write import TraceWriter


class PendingSnapshot:
    """A snapshot being written.  An area persists from the snapshot before, and so does every
    page of it that is not put."""

    def __init__(
        self,
        writer: "TraceWriter",
        info: SnapshotInfo,
        threads: Sequence[ThreadState],
        auxv: bytes,
        layout: form.SnapshotMappings,
    ) -> None:
        self._writer = writer
        self.info = info  # once committed: as it is in the trace
        self._threads, self._auxv, self._layout = threads, auxv, layout
        self._before = writer.table
        self._table = writer.table.copy()
        self._forgotten: List[Tuple[int, int]] = []
        self._fresh = PageTable()  # which ranges have new areas; its slots are not used
        self._touched: Dict[int, int] = {}  # page -> slot, in areas that stay
        self._done = False
        self.process: Optional[ProcessFacts] = None  # what the process was, where that is known

    def _check(self) -> None:
        self._writer.check()
        if self._done:
            raise UffdError("this snapshot is committed or abandoned already")

    def area(self, start: int, npages: int) -> None:
        """Declare `npages` pages from `start` on recorded, all zeros until they are put.
        Replaces what was recorded there."""
        self._check()
        area = PageArea(start, start + npages * PAGE_SIZE, None)
        if npages <= 0 or start % PAGE_SIZE:
            raise ValueError(f"an area of {npages} pages at {start:#x}")
        self._table.add(area)
        self._fresh.add(area)

    def forget(self, start: int, end: int) -> None:
        """`[start, end)` is no longer recorded."""
        self._check()
        self._table.forget(start, end)
        self._fresh.forget(start, end)
        self._forgotten.append((page_floor(start), page_ceil(end)))

    def put(self, address: int, data: "bytes | bytearray | memoryview") -> None:
        """The bytes of whole, consecutive pages from `address` on, all in areas.  ValueError
        when a page is in none."""
        self._check()
        view = memoryview(data).cast("B")
        if address % PAGE_SIZE or len(view) % PAGE_SIZE:
            raise ValueError(f"{len(view)} bytes at {address:#x} are not whole pages")
        for index, position, old in self._pieces(address, address + len(view)):
            at = position - address
            new = self._writer.store(view[at : at + len(old) * PAGE_SIZE], old)
            self._assign(index, position, old, new)

    def unavailable(self, address: int, npages: int) -> None:
        """The pages could not be read; they are shown as unavailable, never as zeros."""
        self._check()
        for index, position, old in self._pieces(address, address + npages * PAGE_SIZE):
            self._assign(index, position, old, array("I", [SLOT_UNAVAILABLE]) * len(old))

    def _pieces(self, start: int, end: int) -> "Iterator[Tuple[int, int, array[int]]]":
        """The pages of `[start, end)` area by area: its index, where they begin, their slots."""
        position = start
        while position < end:
            index = self._dense(position, min(end, position + CHUNK))
            area = self._table.areas[index]
            stop = min(end, area.end)
            first = (position - area.start) // PAGE_SIZE
            count = (stop - position) // PAGE_SIZE
            old = area.slots[first : first + count] if area.slots is not None else zeros(count)
            yield index, position, old
            position = stop

    def _dense(self, start: int, end: int) -> int:
        """Index of the area with `start`, made dense around `[start, end)`."""
        index = self._table.index_at(start)
        if index < 0:
            raise ValueError(f"page {start:#x} is in no area")
        area = self._table.areas[index]
        if area.slots is not None:
            return index
        low = max(area.start, start - start % CHUNK)
        high = min(area.end, end + -end % CHUNK)
        made = PageArea(low, high, zeros((high - low) // PAGE_SIZE))
        self._table.add(made)
        self._fresh.add(PageArea(low, high, None))
        return self._table.index_at(start)

    def _assign(self, index: int, start: int, old: "array[int]", new: "array[int]") -> None:
        changed = differing(old, new)
        if not changed:
            return
        slots, area = self._table.writable(index), self._table.areas[index]
        first = (start - area.start) // PAGE_SIZE
        fresh = self._fresh.index_at(start) >= 0
        slots[first : first + len(new)] = new
        if not fresh:
            touched = self._touched
            for i in changed:
                touched[start + i * PAGE_SIZE] = new[i]

    def _delta(self) -> Delta:
        delta = Delta(forget=self._forgotten)
        for where in self._fresh:
            for area in self._table.overlapping(where.start, where.end):
                piece = cut(area, where.start, where.end)
                if piece is not None:
                    delta.areas.append(piece)
        stay = (p for p in self._touched if self._fresh.index_at(p) < 0)
        for page in sorted(stay):
            slot = self._table.slot(page)
            if slot is not None:
                delta.pages.append(page)
                delta.slots.append(slot)
        return delta

    def _changed(self, delta: Delta) -> int:
        """Pages that differ from the snapshot before (of the first one: that hold anything)."""
        changed = 0
        for page, slot in zip(delta.pages, delta.slots):
            changed += self._before.slot(page) != slot
        for area in delta.areas:
            pieces = [cut(b, area.start, area.end) for b in self._before.overlapping(*_ends(area))]
            before = [p for p in pieces if p is not None and p.slots is not None]
            if area.slots is None:
                changed += sum(len(p.slots) - p.slots.count(SLOT_ZERO) for p in before if p.slots)
                continue
            old = zeros(len(area.slots))
            for piece in before:
                first = (piece.start - area.start) // PAGE_SIZE
                old[first : first + _pages(piece)] = piece.slots or zeros(_pages(piece))
            changed += len(differing(old, area.slots))
        return changed

    def commit(self, info: Optional[SnapshotInfo] = None) -> int:
        """Its number, once it is safely in the trace; UffdError, and then it is not in it.

        `info` replaces what was given at first: how long the process stood still, say."""
        self._check()
        self.info = info or self.info
        self._done = True
        writer = self._writer
        try:
            delta = self._delta()
            threads = b"".join(
                writer.add_object(form.THREAD, form.encode_thread(t)) for t in self._threads
            )
            info = replace(
                self.info,
                number=writer.snapshots,
                label=form.plain_text(self.info.label),
                thread_name=form.plain_text(self.info.thread_name),
                function=form.plain_text(self.info.function),
                threads=len(self._threads),
                pages_changed=self._changed(delta),
            )
            row = form.SnapshotRow(
                info,
                writer.pages.count,
                writer.add_object(form.THREADS, threads),
                writer.add_object(form.LAYOUT, form.encode_layout(self._layout)),
                writer.add_object(form.AUXV, self._auxv),
            )
            told = self.process
            name = writer.add_object(form.PROCESS, encode_facts(told)) if told is not None else b""
            writer.commit(row, self._table, delta, (told.cpu_ns if told is not None else 0, name))
            self.info = info
        finally:
            writer.release(self)
        return info.number

    def abandon(self) -> None:
        """Leave it out of the trace.  Idempotent."""
        self._done = True
        self._writer.release(self)


def _pages(area: PageArea) -> int:
    return (area.end - area.start) // PAGE_SIZE


def _ends(area: PageArea) -> Tuple[int, int]:
    return area.start, area.end
