"""What differs between two snapshots of a trace: groups of pages, and the bytes of the program's
data, from which gdb's side names the variables."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Dict, List, Optional, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.messages_travel import Differences, PageGroup
from gdb_uffd.protocol.model import PAGE_SIZE, DirtyPage, DirtyRange, MemoryUnavailable
from gdb_uffd.replay.report import BLOCK, GAP, RUN_BYTES_MAX, RUNS_MAX
from gdb_uffd.trace.source import Snapshot, Trace

COMPARED_MAX = 1 << 16
"""Pages (256 MiB) whose bytes are compared; the others only count."""

DETAILED_MAX = 4096
"""Pages of variables that are sent."""

Key = Tuple[str, str, Optional[int]]
"""Kind, mapping and thread, as in DirtyPage."""


@dataclass
class _Comparison:
    before: Snapshot
    after: Snapshot
    groups: Dict[Key, PageGroup] = field(default_factory=dict)
    pages: List[DirtyPage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._runs = ffi.new("uint16_t[]", 2 * RUNS_MAX)
        self._old = {s.start: s.end for s in self.before.segments}
        self._new = {s.start: s.end for s in self.after.segments}

    def add(self, start: int, compare: bool) -> None:
        """Count the page at `start`, with its bytes if `compare`."""
        old, new = _page(self.before, start), _page(self.after, start)
        there = self.after if new is not None else self.before
        place = there.classify(start)
        both = compare and bool(old) and bool(new)
        runs: List[DirtyRange] = []
        if both:
            runs, more = self._differences(start, old or b"", new or b"")
            if runs:
                place = there.classify(runs[0].address)
        key = (place.kind, place.mapping, place.thread)
        group = self.groups.get(key, PageGroup(*key))
        count = int(lib.changes_count(old, new, PAGE_SIZE)) if both else 0
        self.groups[key] = replace(
            group,
            pages=group.pages + 1,
            compared=group.compared + both,
            bytes_changed=group.bytes_changed + count,
            came=group.came + (old is None),
            went=group.went + (new is None),
        )
        if place.kind == "data" and runs and len(self.pages) < DETAILED_MAX:
            around = _around(runs, start, old or b"", new or b"")
            self.pages.append(
                DirtyPage(
                    start, start + PAGE_SIZE, place.kind, place.mapping, count, place.thread,
                    ["program"], None, runs, more, 0, around,
                )
            )  # fmt: skip

    def _differences(self, start: int, old: bytes, new: bytes) -> Tuple[List[DirtyRange], bool]:
        count = lib.changes_runs(old, new, GAP, self._runs, RUNS_MAX)
        runs, more = [], count > RUNS_MAX
        for i in range(min(count, RUNS_MAX)):
            at, length = self._runs[2 * i], self._runs[2 * i + 1]
            more |= length > RUN_BYTES_MAX
            end = at + min(length, RUN_BYTES_MAX)
            runs.append(DirtyRange(start + at, old[at:end], new[at:end]))
        return runs, more


def _around(runs: List[DirtyRange], start: int, old: bytes, new: bytes) -> List[DirtyRange]:
    """The 16-byte blocks that hold the ranges: see DirtyPage."""
    blocks: Set[int] = set()
    for run in runs:
        offset = run.address - start
        blocks.update(range(offset & -BLOCK, offset + len(run.before), BLOCK))
    return [
        DirtyRange(start + at, old[at : at + BLOCK], new[at : at + BLOCK]) for at in sorted(blocks)
    ]


def _page(snapshot: Snapshot, start: int) -> Optional[bytes]:
    """The page's bytes; b"" when they cannot be had, None when there is no such page."""
    try:
        return snapshot.read(start, PAGE_SIZE)
    except MemoryUnavailable:
        mapped = any(m.start <= start < m.end for m in snapshot.mappings)
        return b"" if mapped else None


def compare(trace: Trace, a: int, b: int) -> Differences:
    """What differs between them."""
    starts = trace.changed_pages(a, b)
    before = trace.snapshot(a)
    try:
        after = trace.snapshot(b)
        try:
            comparison = _Comparison(before, after)
            for n, start in enumerate(starts):
                comparison.add(start, n < COMPARED_MAX)
            same = before.auxv == after.auxv and before.executable == after.executable
        finally:
            after.close()
    finally:
        before.close()
    return Differences(len(starts), same, list(comparison.groups.values()), comparison.pages)


def image(trace: Trace, a: int, b: int, start: int) -> Optional[PageImage]:
    """The page at `start` in both; None unless both have it."""
    pages = []
    for number in (a, b):
        snapshot = trace.snapshot(number)
        try:
            pages.append(_page(snapshot, start))
        finally:
            snapshot.close()
    if not all(pages):
        return None
    before, after = (page or b"" for page in pages)
    return PageImage(start, before, after)
