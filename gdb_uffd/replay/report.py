"""From the native list of written pages to a CallReport."""

from __future__ import annotations

import itertools
from typing import Any, List, Optional, Tuple

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    CallReport,
    DirtyPage,
    DirtyRange,
    FirstWrite,
    PageRange,
    page_floor,
)
from gdb_uffd.replay.layout import classify
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.source import AddressPlace

RUNS_MAX = 64
"""Differing stretches listed for one page."""

RUN_BYTES_MAX = 256
"""Bytes of one stretch that the report carries."""

ROOM_BYTES = 1 << 17
"""Bytes beyond these limits that one report carries, of the pages of data that come first: what is
not carried is counted, and has no name."""

_MOST_RUNS = 512  # more do not fit in a page: each has a byte, and GAP + 1 equal ones lie between

DETAILED_PAGES_MAX = 4096
"""Pages of one report that carry their stretches; the others only count."""

BLOCK = 16  # bytes, the blocks of DirtyPage.around

LISTED_PAGES_MAX = int(lib.IMAGES_MAX)
"""Pages that a report lists, each with its images; of the others it tells the ranges."""

RANGES_MAX = 4096
"""Ranges of pages that are not listed; what fits in none is only counted."""

_RANK = {"data": 0, "tls": 1, "heap": 3, "stack": 4, "anonymous": 5}
"""Which pages a report lists first; between these come those of live frames, and scratch last."""

GAP = 7  # equal bytes over which neighbours are joined

_WRITERS = (
    (lib.WRITER_PROGRAM, "program"),
    (lib.WRITER_GDB, "gdb"),
    (lib.WRITER_MALLOC, "malloc"),
    (lib.WRITER_ASSIGNMENT, "assignment"),
)


class Builder:
    """Makes DirtyPage objects; `tid` is the recorded thread that the vessel impersonated."""

    def __init__(self, vessel: Vessel, tid: int, sp_floor: int) -> None:
        self.vessel = vessel
        self.tid = tid
        self.sp_floor = sp_floor
        self._room = ROOM_BYTES
        self._runs = ffi.new("uint16_t[]", 2 * _MOST_RUNS)

    def fill(self, report: CallReport, changes: Any) -> None:
        """The report's pages; `changes` is the native list, sorted by address."""
        count = int(changes.count)
        if count <= DETAILED_PAGES_MAX:
            report.pages = [self._page(changes.at[i], True) for i in range(count)]
            return
        places = [self._roughly(changes.at[i]) for i in range(count)]
        order = sorted(range(count), key=lambda i: self._rank(changes.at[i], places[i]))
        detailed, listed = set(order[:DETAILED_PAGES_MAX]), sorted(order[:LISTED_PAGES_MAX])
        if changes.truncated:
            for i in listed:
                check(lib.transaction_load(self.vessel.pager, changes, i), doing="keeping a page")
        report.pages = [self._page(changes.at[i], i in detailed) for i in listed]
        for i in sorted(order[LISTED_PAGES_MAX:]):
            self._unlisted(report, changes.at[i], places[i])

    def _roughly(self, change: Any) -> AddressPlace:
        return classify(self.vessel, change.first.address or change.page)

    def _rank(self, change: Any, place: AddressPlace) -> int:
        if place.kind == "stack" and place.thread == self.tid:
            return 2 if change.page + PAGE_SIZE > self.sp_floor else 6
        return _RANK[place.kind]

    @staticmethod
    def _unlisted(report: CallReport, change: Any, place: AddressPlace) -> None:
        if not change.writers & (lib.WRITER_PROGRAM | lib.WRITER_ASSIGNMENT):
            return  # gdb's own breakpoints and frames are few
        page, changed = int(change.page), int(change.bytes_changed)
        report.rest_pages += 1
        report.rest_bytes += changed
        last = report.rest[-1] if report.rest else None
        same = last is not None and (last.kind, last.mapping, last.thread) == (
            place.kind, place.mapping, place.thread
        )  # fmt: skip
        if last is not None and same and last.end == page:
            last.end += PAGE_SIZE
            last.bytes_changed += changed
        elif len(report.rest) < RANGES_MAX:
            report.rest.append(
                PageRange(page, page + PAGE_SIZE, place.kind, place.mapping, place.thread, changed)
            )

    def _page(self, change: Any, detailed: bool) -> DirtyPage:
        runs, more = self._differences(change, detailed, RUNS_MAX, RUN_BYTES_MAX)
        touched = change.first.address or self._thread_local_in(change.page, runs)
        place = self._place(touched, runs)
        if more and runs and place.kind != "stack" and self._room > 0:
            runs, more = self._differences(change, detailed, _MOST_RUNS, PAGE_SIZE)
            self._room -= sum(len(run.before) for run in runs)
        above = 0
        if place.kind == "stack" and runs:
            above = self._bytes_above(change)
            runs, more = runs[:1], more or len(runs) > 1
        first = None
        if change.first.tid:
            first = FirstWrite(
                change.first.pc,
                change.first.sp,
                self.tid,
                callers(change.callers),
                change.first.address,
            )
        return DirtyPage(
            start=change.page,
            end=change.page + PAGE_SIZE,
            kind=place.kind,
            mapping=place.mapping,
            bytes_changed=change.bytes_changed,
            thread=place.thread,
            writers=[name for bit, name in _WRITERS if change.writers & bit],
            first_write=first,
            ranges=runs,
            more_ranges=more,
            around=self._around(change, runs) if place.kind != "stack" else [],
            bytes_above=above,
        )

    def _bytes_above(self, change: Any) -> int:
        """Changed bytes at or above the stack pointer as it was before the call's own frames."""
        skip = min(max(0, self.sp_floor - change.page), PAGE_SIZE)
        return int(lib.changes_count(change.before + skip, change.after + skip, PAGE_SIZE - skip))

    def _place(self, touched: int, runs: List[DirtyRange]) -> AddressPlace:
        """What the changed bytes belong to: one page can hold a stack's top and the TLS block.
        Where none changed, the byte that was written first."""
        place = classify(self.vessel, runs[0].address if runs else touched)
        if place.kind != "tls" and len(runs) > 1 and self._has_tls(page_floor(touched)):
            for run in runs[1:]:
                other = classify(self.vessel, run.address)
                if other.kind == "tls":
                    return other
        return place

    def _thread_local_in(self, page: int, runs: List[DirtyRange]) -> int:
        """An address in a page of which is not known what was written: of a thread's block, if it
        holds one, as its other bytes change least often without a trace."""
        if runs or not self._has_tls(page):
            return page
        places = range(page, page + PAGE_SIZE, 64)
        return next((at for at in places if classify(self.vessel, at).kind == "tls"), page)

    def _has_tls(self, page: int) -> bool:
        """Whether a thread's block lies in that page; recorded, so looked at once a page."""
        known = self.vessel.tls_pages
        if page not in known:
            find = self.vessel.snapshot.classify
            known[page] = any(find(at).kind == "tls" for at in range(page, page + PAGE_SIZE, 64))
        return known[page]

    def _differences(
        self, change: Any, detailed: bool, most: int, longest: int
    ) -> Tuple[List[DirtyRange], bool]:
        """At most `most` stretches of at most `longest` bytes; whether there is more."""
        if change.before == ffi.NULL:
            return [], bool(change.bytes_changed)
        if not detailed:
            return [], True
        count = lib.changes_runs(change.before, change.after, GAP, self._runs, most)
        before, after = ffi.buffer(change.before, PAGE_SIZE), ffi.buffer(change.after, PAGE_SIZE)
        runs, more = [], count > most
        for i in range(min(count, most)):
            start, length = self._runs[2 * i], self._runs[2 * i + 1]
            more |= length > longest
            end = start + min(length, longest)
            runs.append(DirtyRange(change.page + start, before[start:end], after[start:end]))
        return runs, more

    @staticmethod
    def _around(change: Any, runs: List[DirtyRange]) -> List[DirtyRange]:
        """The 16-byte blocks that hold the ranges, joined: a scalar or pointer of the program lies
        inside one (psABI 3.1.2: natural alignment), so its values need no further question."""
        out: List[DirtyRange] = []
        if not runs:
            return out
        before, after = ffi.buffer(change.before, PAGE_SIZE), ffi.buffer(change.after, PAGE_SIZE)
        start = end = -1
        for run in runs:
            offset = run.address - change.page
            low, high = offset & -BLOCK, (offset + len(run.before) + BLOCK - 1) & -BLOCK
            if low > end >= 0:
                out.append(DirtyRange(change.page + start, before[start:end], after[start:end]))
            if low > end or end < 0:
                start = low
            end = high
        out.append(DirtyRange(change.page + start, before[start:end], after[start:end]))
        return out


def callers(kept: Any) -> Tuple[int, ...]:
    """The native list of return addresses, innermost first."""
    if kept == ffi.NULL:
        return ()
    return tuple(itertools.takewhile(bool, (kept[i] for i in itertools.count())))


def page_images(changes: Any, page: int) -> Optional[Tuple[bytes, bytes]]:
    """(before, after) of a page in a native list; None when it is not there or does not differ."""
    low, high = 0, int(changes.count)  # sorted by page; `uffd diff` asks for each of them
    while low < high:
        middle = (low + high) // 2
        if changes.at[middle].page < page:
            low = middle + 1
        else:
            high = middle
    if low == changes.count or changes.at[low].page != page or changes.at[low].before == ffi.NULL:
        return None
    change = changes.at[low]
    return ffi.buffer(change.before, PAGE_SIZE)[:], ffi.buffer(change.after, PAGE_SIZE)[:]
