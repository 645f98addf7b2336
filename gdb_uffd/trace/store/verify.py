"""Looking at every byte of a trace that has a checksum."""

from __future__ import annotations

import os
from array import array
from dataclasses import field
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.trace.source import SLOT_UNAVAILABLE
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.page_read import BadPage, PageData
from gdb_uffd.trace.store.page_table import Delta, TableError
from gdb_uffd.trace.store.read import StoreTrace

_AT_ONCE = 256  # pages
MAX_BAD = 100_000  # bad pages that are told one by one


@dataclass
class BadSlot:
    """A page that cannot be had: its slot, why, and where it belongs: address -> snapshots;
    `files`: the mapped files that it is part of."""

    slot: int
    reason: str
    places: Dict[int, List[int]] = field(default_factory=dict)
    files: List[str] = field(default_factory=list)


@dataclass
class TraceVerdict:
    """What is wrong with a trace.  `problems`: lines about the index and the files' sizes."""

    snapshots: int
    pages: int
    bad: List[BadSlot] = field(default_factory=list)
    problems: List[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.bad and not self.problems


def verify(
    trace: StoreTrace, progress: Optional[Callable[[int, int], None]] = None
) -> TraceVerdict:
    """Compare every page and every record with its checksum.

    `progress` is called with pages done and pages in all.
    """
    slots = trace.slots - trace.pages.missing
    verdict = TraceVerdict(len(trace.snapshots), trace.slots - 1)
    verdict.problems += trace.warnings
    bad = {slot: BadSlot(slot, why) for slot, why in _bad_slots(trace.pages, slots, progress)}
    objects: Set[bytes] = set()
    seen: Dict[int, Tuple["array[int]", Dict[int, int]]] = {}
    beyond = _beyond(trace)
    for number in range(len(trace.snapshots)):
        try:
            row = trace.row(number)
            trace.check_records(number, objects)
            table = trace.table(number)
        except UffdError as error:
            if str(error) not in verdict.problems:
                verdict.problems.append(str(error))
            continue
        objects |= {row.thread_list, row.layout, row.auxv}
        for area in table if bad or beyond else ():
            if area.slots is None:
                continue
            known = seen.get(area.start)
            if known is None or known[0] is not area.slots:
                known = seen[area.start] = area.slots, _indices(area.slots, bad, trace.pages)
            for index, slot in known[1].items():
                where = bad[slot].places.setdefault(area.start + index * PAGE_SIZE, [])
                where.append(number)
    for path, slot in trace.embedded_slots():
        if slot in bad or slot >= len(trace.pages.sums):
            found = bad.setdefault(slot, BadSlot(slot, trace.pages.why(slot)))
            found.files.append(path)
    verdict.bad = [bad[slot] for slot in sorted(bad)]
    return verdict


def _beyond(trace: StoreTrace) -> bool:
    """Whether any page table speaks of slots that are not there."""
    end = len(trace.pages.sums)
    for number in range(len(trace.snapshots)):
        try:
            delta = Delta.decode(trace.index.delta(number)[1])
        except (form.FormatError, TableError):
            continue  # told when its table is made
        for slots in (delta.slots, *(a.slots for a in delta.areas if a.slots is not None)):
            if any(end <= slot < SLOT_UNAVAILABLE for slot in slots):
                return True
    return False


def _indices(slots: "array[int]", bad: Dict[int, BadSlot], pages: PageData) -> Dict[int, int]:
    """Which pages of an area are bad: index -> slot.  Those beyond the file are added to `bad`."""
    used, end = set(slots), len(pages.sums)
    for slot in used:
        if end <= slot < SLOT_UNAVAILABLE and slot not in bad:
            bad[slot] = BadSlot(slot, pages.why(slot))
    if not bad.keys() & used:
        return {}
    return {index: slot for index, slot in enumerate(slots) if slot in bad}


def _bad_slots(
    pages: PageData, slots: int, progress: Optional[Callable[[int, int], None]]
) -> Iterable[Tuple[int, str]]:
    """Slots whose page is damaged or not there."""
    told = 0
    for first in range(1, slots, _AT_ONCE):
        if progress is not None and first // _AT_ONCE % 256 == 0:
            progress(first, slots)
        part: Sequence[int] = range(first, min(slots, first + _AT_ONCE))
        try:
            pages.read(part)
            continue
        except BadPage:
            pass
        for slot in part:
            try:
                pages.read([slot])
            except BadPage as found:
                told += 1
                if told <= MAX_BAD:
                    yield slot, found.reason


def ranges_text(numbers: Sequence[int]) -> str:
    """ "0-3, 7" of sorted numbers."""
    out: List[List[int]] = []
    for number in numbers:
        if out and out[-1][1] == number - 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in out)


def trace_size(path: str) -> int:
    """Bytes of all files of the trace in the directory `path`."""
    return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
