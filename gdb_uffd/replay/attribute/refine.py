"""What the changed bytes of a report are: blocks of the heap, malloc's own words, thread-locals,
slots of the dynamic linker, bytes in frames.

Made when somebody asks for the report (`uffd call`, `uffd dirty`), not after each `print f()`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Callable, List, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    CallReport,
    DirtyPage,
    DirtyRange,
    MemoryUnavailable,
)
from gdb_uffd.replay import inner_stack
from gdb_uffd.replay.attribute.heap_blocks import HeapWork
from gdb_uffd.replay.attribute.malloc import Known
from gdb_uffd.replay.attribute.owners import Owners
from gdb_uffd.replay.views import View, Views

Range = Tuple[int, int]

DATA_PAGES_MAX = 4096
"""Pages whose bytes are given a role; as many as carry their stretches (report.py)."""


@dataclass
class CallFacts:
    """What a report does not say of itself: how the process stood when the call began and ended.

    `stack`: a thread's stack pointer when it began.  `brk`: (start, break) before and after.
    `born`, `gone`: ranges that the call mapped and unmapped, half-open; `gone_blocks`: the sizes
    of malloc's blocks that had such a mapping of their own.  `rooms`: blocks that gdb's own malloc
    made for arguments after the first call had begun; `early`: ranges that it mapped before.
    """

    tid: int
    fs_base: int
    stack: Callable[[int], int]
    brk: Tuple[Range, Range]
    born: List[Range] = field(default_factory=list)
    gone: List[Range] = field(default_factory=list)
    gone_blocks: List[int] = field(default_factory=list)
    rooms: Sequence[int] = ()
    early: Sequence[Range] = ()


class Refiner:
    """Of one diversion; knows what stays true from report to report."""

    def __init__(self, owners: Owners, views: Views) -> None:
        self.owners = owners
        self._views = views
        self._known = Known()
        self._recorded = Known()

    def forget(self) -> None:
        """The memory is another one, after a reset."""
        self._known = Known()
        self.owners.forget()

    def kept(self, pages: Sequence[DirtyPage]) -> None:
        """What these pages hold now is the state before the next report."""
        _forget_above([page.start for page in pages if page.bytes_changed], self._known)
        self.owners.forget()

    @staticmethod
    def _forget_split(pages: Sequence[DirtyPage], known: Known) -> None:
        """gdb's own malloc may have cut a chunk in two: the boundaries between which the call began
        are not those that stand before and after it."""
        _forget_above([page.start for page in pages if "malloc" in page.writers], known)

    def refine(self, report: CallReport, facts: CallFacts) -> None:
        """Fill in what only the memory before and after can tell.  Changes `report`."""
        which_all = report.kind == "all"
        before, after = (self._views.get(a, which_all) for a in (False, True))
        known = self._recorded if which_all else self._known
        heap = HeapWork(
            before,
            after,
            self.owners,
            known,
            facts.tid,
            facts.fs_base,
            facts.brk,
            facts.born,
            facts.gone_blocks,
            facts.rooms,
            facts.early,
        )
        self._forget_split(report.pages, known)
        self.owners.look(facts.tid, before.read, which_all)
        self._stacks(report, facts, before, after)
        heap.tell(report)
        zone = self.owners.snapshot.arch.red_zone
        inner_stack.settle(report, self.owners.modules, self._floor(facts, facts.tid), zone)
        self._data(report, facts, heap)
        self._forget_split(report.pages, known)
        report.mapped_bytes = sum(end - start for start, end in facts.born) - heap.rooms_bytes
        report.unmapped_bytes = sum(end - start for start, end in facts.gone)
        if report.kept and not which_all:
            self.kept(report.pages)

    def _floor(self, facts: CallFacts, thread: int) -> int:
        """What lies below it on a thread's stack is nobody's."""
        return facts.stack(thread) - self.owners.snapshot.arch.red_zone

    def _stacks(self, report: CallReport, facts: CallFacts, before: View, after: View) -> None:
        """Of a stack's page, the changed bytes of live frames; the rest is scratch."""
        mapped = [*facts.born, *facts.early]
        for page in report.pages:
            page.mapping_start = self.owners.mapping_start(page.start, page.mapping, mapped)
            if page.kind != "stack" or not page.bytes_changed or page.thread is None:
                continue
            floor = self._floor(facts, page.thread)
            page.bytes_above = 0
            if floor >= page.end:
                continue
            _above(page, max(floor, page.start), before, after)

    def _data(self, report: CallReport, facts: CallFacts, heap: HeapWork) -> None:
        """Roles and names on pages of files' data and of thread-locals."""
        read = heap.after.read
        own = heap.own_words()
        for page in report.pages[:DATA_PAGES_MAX]:
            if page.kind == "data" and page.ranges:
                page.ranges = self.owners.data_runs(page.ranges, page.mapping, heap.malloc_words)
            elif page.kind in ("tls", "heap", "anonymous") and page.ranges:
                page.ranges = self.owners.linker_runs(page.ranges, facts.fs_base, read)
                page.ranges = self.owners.tls_runs(page, facts.tid, read, own)
                if page.kind == "tls":
                    page.ranges = [self._on_tls_page(run, facts) for run in page.ranges]

    def _on_tls_page(self, run: DirtyRange, facts: CallFacts) -> DirtyRange:
        """A thread's stack may end on the page where its thread-locals begin."""
        if run.kind:
            return run
        place = self.owners.snapshot.classify(run.address)
        if place.kind != "stack" or place.thread is None:
            return run
        floor = self._floor(facts, place.thread)
        role = "scratch" if run.address + len(run.before) <= floor else ""
        return dataclasses.replace(run, kind="stack", thread=place.thread, role=role)


def _forget_above(changed: Sequence[int], known: Known) -> None:
    for start, index in known.indexes.items():
        above = [at for at in changed if at + PAGE_SIZE > start]
        if above:
            lib.heap_index_forget(index, min(above))


def _above(page: DirtyPage, floor: int, before: View, after: View) -> None:
    try:
        old, new = (v.read(page.start, PAGE_SIZE) for v in (before, after))
    except MemoryUnavailable:
        return
    runs = []
    for run in differences(page.start, old, new):
        if run.address + len(run.before) > floor:
            cut = max(0, floor - run.address)
            live = DirtyRange(run.address + cut, run.before[cut:], run.after[cut:])
            page.bytes_above += sum(a != b for a, b in zip(live.before, live.after))
            runs.append(live)
    if page.bytes_above:
        page.ranges = runs[:64]


_runs = ffi.new("uint16_t[]", 2 * 2048)


def differences(page: int, before: bytes, after: bytes, gap: int = 7) -> List[DirtyRange]:
    """The differing stretches of two images of a page, joined over `gap` equal bytes."""
    count = lib.changes_runs(before, after, gap, _runs, 2048)
    out = []
    for i in range(min(count, 2048)):
        start, length = _runs[2 * i], _runs[2 * i + 1]
        out.append(
            DirtyRange(page + start, before[start : start + length], after[start : start + length])
        )
    return out
