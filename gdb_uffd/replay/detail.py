"""What is told of a report when somebody looks at it: `refine` once, memory before and after."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.attribute.malloc import mapped_chunk
from gdb_uffd.replay.attribute.owners import Owners
from gdb_uffd.replay.attribute.refine import CallFacts, Refiner
from gdb_uffd.replay.regions import Range
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.replay.views import View, Views


class Detail:
    """Of one diversion: the last report's facts, and the views that belong to it."""

    def __init__(self, vessel: Vessel, changes: Any) -> None:
        self.vessel = vessel
        self.views = Views(vessel, changes)
        self._refiner: Optional[Refiner] = None
        self._report: Optional[CallReport] = None  # not refined yet
        self._facts: Optional[CallFacts] = None

    def note(
        self,
        report: CallReport,
        tid: int,
        stack: Callable[[int], int],
        brk: Range,
        rooms: Sequence[int],
    ) -> None:
        """A report was made; `stack` gives a thread's stack pointer and `brk` the heap's start
        and break as they were when it began; `rooms`: see refine.Facts.
        Called while the vessel stands as it ended."""
        regions = self.vessel.regions
        tid = tid or self.vessel.snapshot.threads[0].tid  # nothing ran: gdb assigned
        born: List[Range] = []
        gone: List[Range] = []
        early: List[Range] = []
        if regions.changed:
            was, is_ = regions.covered_at_begin(), regions.covered()
            at_call = regions.covered_at_call()
            if at_call is not None:
                was, early = at_call, minus(at_call, was)
            born, gone = minus(is_, was), minus(was, is_)
        now = self.vessel.save_brk()
        self._report = report
        self._facts = CallFacts(
            tid, self._fs_base(tid), stack, (brk, now), born, gone, self._blocks_in(gone), rooms,
            early,
        )  # fmt: skip
        if report.kept and self._refiner is not None:
            self._refiner.kept(report.pages)

    def _blocks_in(self, gone: Sequence[Range]) -> List[int]:
        """Sizes of the blocks whose mappings were given back; soon nobody can read them."""
        sizes: List[int] = []
        view = View() if gone else None
        if view is None:
            return sizes
        view.set(self.vessel, ffi.NULL, lib.VIEW_OPEN)
        for start, end in gone:
            while start < end:
                found = mapped_chunk(view, start, start, end)
                if found is None:
                    break
                sizes.append(found[1] - 16)
                start = found[0] + found[1]
        view.close()
        return sizes

    def refine(self, report: CallReport) -> None:
        """Fill in what the report's bytes are; once for each report, cheap after that."""
        if report is self._report and self._facts is not None:
            self._report = None
            self._tool().refine(report, self._facts)

    def refine_all(self, report: CallReport, tid: int, brk: Range) -> None:
        """The same for a report of everything since the snapshot."""

        def stack(thread: int) -> int:
            return self.vessel.snapshot.thread(thread).registers.sp

        born = self.vessel.regions.covered(lib.REGION_BORN)
        facts = CallFacts(tid, self._fs_base(tid), stack, (brk, self.vessel.save_brk()), born)
        self._tool().refine(report, facts)

    def view(self, after: bool, which_all: bool) -> View:
        """Memory before or after the last report, or (`which_all`) as recorded or as it is."""
        return self.views.get(after, which_all)

    def forget(self) -> None:
        """Everything is the snapshot again."""
        self._report = self._facts = None
        if self._refiner is not None:
            self._refiner.forget()

    def close(self) -> None:
        """Free the views.  Idempotent."""
        self.views.close()

    @property
    def owners(self) -> Owners:
        """Whose memory is which, in this diversion."""
        return self._tool().owners

    def _tool(self) -> Refiner:
        if self._refiner is None:
            self._refiner = Refiner(Owners(self.vessel), self.views)
        return self._refiner

    def _fs_base(self, tid: int) -> int:
        try:
            return self.vessel.snapshot.thread(tid).registers.thread_pointer
        except KeyError:
            return 0


def minus(these: Sequence[Range], those: Sequence[Range]) -> List[Range]:
    """What `these` (sorted, disjoint) cover and `those` do not."""
    out: List[Range] = []
    index = 0
    for start, end in these:
        while index < len(those) and those[index][1] <= start:
            index += 1
        at, k = start, index
        while at < end:
            if k >= len(those) or those[k][0] >= end:
                out.append((at, end))
                break
            if those[k][0] > at:
                out.append((at, those[k][0]))
            at = max(at, those[k][1])
            k += 1
    return out
