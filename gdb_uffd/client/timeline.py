"""The answers of `uffd map`: a row a snapshot, folded and cut where they are many.  No gdb here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from gdb_uffd.client import snapshots as naming
from gdb_uffd.client.sparkline import sparkline
from gdb_uffd.client.text import Look
from gdb_uffd.client.text import number as grouped
from gdb_uffd.model import SCHEMA_VERSION, SnapshotInfo
from gdb_uffd.terminal import printable

MAX_LINES = 60
"""Rows of a table without -full; beyond that, equal neighbours share one, then the middle goes."""

_ENDS = 20


@dataclass(frozen=True)
class Point:
    """What the expression came to at one snapshot: a `value` (with its `type`), or an `error`.

    `number` is the value where it is one.
    """

    snapshot: int
    value: str = ""
    type: str = ""
    number: Optional[float] = None
    error: str = ""

    def text(self) -> str:
        """For the table, one line."""
        return printable(" ".join((f"<{self.error}>" if self.error else self.value).split()))


@dataclass
class Timeline:
    """The points of one `uffd map`; `interrupted` when there should have been more."""

    expression: str
    points: List[Point]
    interrupted: bool = False


@dataclass(frozen=True)
class _Row:
    first: Point
    last: Point


def lines(
    timeline: Timeline, every: Sequence[SnapshotInfo], look: Look, all_rows: bool = False
) -> List[str]:
    """The table, and the sparkline where there are numbers."""
    rows = [_Row(point, point) for point in timeline.points]
    if not all_rows and len(rows) > MAX_LINES:
        rows = _folded(rows)
    cells = [_cells(row, every) for row in rows]
    widths = [max((len(cell[c]) for cell in cells), default=0) for c in range(3)]
    out: List[str] = []
    cut = range(_ENDS, len(rows) - _ENDS) if not all_rows and len(rows) > MAX_LINES else range(0)
    for n, cell in enumerate(cells):
        if n in cut:
            if n == cut.start:
                out.append(f"  … {grouped(len(cut))} more: `uffd map -full`")
            continue
        head = "  ".join(text.ljust(width) for text, width in zip(cell, widths) if width)
        out.append(look.plain(f"{head}  {rows[n].first.text()}".rstrip()))
    return out + _spark(timeline, look)


def _folded(rows: Sequence[_Row]) -> List[_Row]:
    """Neighbours with the same text as one row."""
    out: List[_Row] = []
    for row in rows:
        if out and out[-1].last.text() == row.first.text():
            out[-1] = _Row(out[-1].first, row.last)
        else:
            out.append(row)
    return out


def _cells(row: _Row, every: Sequence[SnapshotInfo]) -> List[str]:
    """Number, time, label."""
    first, last = every[row.first.snapshot], row.last.snapshot
    number = str(first.number) if first.number == last else f"{first.number}-{last}"
    label = f'"{printable(first.label)}"' if first.label else ""
    if len(label) > 26:
        label = label[:24] + "…" + '"'
    return [number, naming.after(every[0], first) if first.number else "", label]


def _spark(timeline: Timeline, look: Look) -> List[str]:
    numbers = [point.number for point in timeline.points]
    known = [n for n in numbers if n is not None]
    if len(known) < 2:
        return []
    ends = f"  {_short(min(known))} … {_short(max(known))}"
    width = max(8, (look.width or 120) - len(ends) - 1)
    if look.unicode and look.width:  # gdb counts bytes, three of them a block
        width = max(8, (look.width - len(ends) - 4) // 3)
    return [sparkline(numbers, width, look.unicode) + look.plain(ends)]


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def as_json(timeline: Timeline, every: Sequence[SnapshotInfo]) -> Dict[str, Any]:
    """The object of `uffd map -json`."""
    points = []
    for point in timeline.points:
        info = every[point.snapshot]
        entry: Dict[str, Any] = {
            "snapshot": point.snapshot,
            "label": info.label,
            "time_ns": info.time_ns,
        }
        if point.error:
            points.append({**entry, "value": None, "type": None, "error": point.error})
        else:
            points.append({**entry, "value": point.value, "type": point.type})
    return {
        "schema": SCHEMA_VERSION,
        "expression": timeline.expression,
        "interrupted": timeline.interrupted,
        "points": points,
    }
