"""Finding a snapshot by name, and which pages of two snapshots differ."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, SnapshotInfo, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.source import FILE, PAGES, SLOT_ZERO, UNAVAILABLE, ZERO, Segment

MAX_CHANGED = 1 << 24
"""Pages told at most (64 GiB of memory)."""


def find_snapshot(snapshots: Sequence[SnapshotInfo], name: str) -> int:
    """The number that `name` means: a number, "start", "end", or a label that one snapshot has.
    UffdError."""
    last = len(snapshots) - 1
    text = name.strip()
    if text in ("start", "end"):
        return 0 if text == "start" else last
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 12 else last + 1
        if number > last:
            raise UffdError(
                f"no snapshot {text}: " + (f"0 to {last}" if last else "there is only 0")
            )
        return number
    found = [info.number for info in snapshots if info.label and info.label == text]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise UffdError(
            f"{len(found)} snapshots have the label {printable(text)!r} ({some}): give a number"
        )
    raise UffdError(
        f"no snapshot {printable(text)!r}: give a number (0 to {last}), a label, start or end"
    )


def changed_pages(a: Sequence[Segment], b: Sequence[Segment]) -> List[int]:
    """Start addresses of the pages whose recorded bytes differ, sorted.

    Recorded pages are compared by slot, pages of files by file and offset.  A page that only one
    of them has counts when there is something in it: memory never touched does not.
    """
    out: List[int] = []
    for start, end, one, two in _overlaps(a, b):
        if len(out) > MAX_CHANGED:
            raise UffdError(f"more than {MAX_CHANGED} pages differ: compare snapshots nearer by")
        out += _differing(start, end, one, two)
    return out


Overlap = Tuple[int, int, Optional[Segment], Optional[Segment]]


def _overlaps(a: Sequence[Segment], b: Sequence[Segment]) -> List[Overlap]:
    """Both cut at each other's borders, sorted."""
    bounds = sorted({x for s in (*a, *b) for x in (s.start, s.end)})
    out: List[Overlap] = []
    i = j = 0
    for start, end in zip(bounds, bounds[1:]):
        while i < len(a) and a[i].end <= start:
            i += 1
        while j < len(b) and b[j].end <= start:
            j += 1
        one = a[i] if i < len(a) and a[i].start <= start else None
        two = b[j] if j < len(b) and b[j].start <= start else None
        if one is not None or two is not None:
            out.append((start, end, one, two))
    return out


def _differing(start: int, end: int, a: Optional[Segment], b: Optional[Segment]) -> List[int]:
    kinds = {s.kind for s in (a, b) if s is not None}
    if (PAGES in kinds and kinds <= {PAGES, ZERO}) or (PAGES in kinds and None in (a, b)):
        one, two = _slots(a, start, end), _slots(b, start, end)
        if one is not None and two is not None:
            if one == two:
                return []
            pairs = enumerate(zip(one, two))
            return [start + i * PAGE_SIZE for i, (x, y) in pairs if x != y]
        some = one if one is not None else two or b""
        return [start + i * PAGE_SIZE for i, x in enumerate(some) if x != SLOT_ZERO]
    if a is not None and b is not None and a.kind == b.kind:
        if a.kind in (ZERO, UNAVAILABLE):
            return []
        same = a.data is b.data and a.offset - a.start == b.offset - b.start
        if a.kind == FILE and same:
            return []
    elif kinds <= {ZERO, UNAVAILABLE}:
        return []
    if (end - start) // PAGE_SIZE > MAX_CHANGED:
        raise UffdError(f"more than {MAX_CHANGED} pages differ: compare snapshots nearer by")
    return list(range(start, end, PAGE_SIZE))


def _slots(segment: Optional[Segment], start: int, end: int) -> Optional[bytes | memoryview]:
    """Slots of `[start, end)`; None for memory that is all zeros or not there."""
    if segment is None or segment.kind != PAGES:
        return None
    first = (start - segment.start) // PAGE_SIZE
    view: memoryview = memoryview(segment.slots)[first : first + (end - start) // PAGE_SIZE]
    return view
