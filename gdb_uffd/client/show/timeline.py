"""The answers of `uffd map`: a row a snapshot, folded and cut where they are many.  No gdb here."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from gdb_uffd.client.show import snapshots as naming
from gdb_uffd.client.show.sparkline import sparkline
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.client.show.text import Look
from gdb_uffd.client.show.text import number as grouped
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import SCHEMA_VERSION, SnapshotInfo
from gdb_uffd.terminal import printable

MAX_LINES = 60
"""Rows of a table without -full, equal neighbours being one; beyond that the middle goes."""

_ENDS = 20


@dataclass(frozen=True)
class Point:
    """What the expression came to at one snapshot: a `value` (with its `type`), or an `error`,
    perhaps an `uncaught` exception.

    `number` is the value where it is one.
    """

    snapshot: int
    value: str = ""
    type: str = ""
    number: Optional[float] = None
    error: str = ""
    uncaught: Optional[Dict[str, Any]] = None  # of docs/json.md

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
    if not all_rows:
        rows = _folded(rows)
    out: List[str] = []
    before = ""
    cut = range(_ENDS, len(rows) - _ENDS) if not all_rows and len(rows) > MAX_LINES else range(0)
    for n, head in enumerate(aligned([_cells(row, every) for row in rows], look)):
        text = rows[n].first.text()
        if n in cut:
            if n == cut.start:
                out.append(f"  … {grouped(len(cut))} more: `uffd map -full`")
        else:
            out += under(head, [_marked(text, before, look) if n else text], look)
        before = text
    return [look.tidy(line) for line in out] + _spark(timeline, look)


def _marked(text: str, before: str, look: Look) -> str:
    """What of a value is another than before, in colour: its words, where they are as many."""
    if text == before:
        return text
    words, old = text.split(" "), before.split(" ")
    if len(words) != len(old):
        return look.paint("added", text)
    return " ".join(w if w == o else look.paint("added", w) for w, o in zip(words, old))


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
    """Numbers, time of the first, labels of both ends."""
    first, last = every[row.first.snapshot], every[row.last.snapshot]
    number, label = str(first.number), _label(first)
    if first is not last:
        number += f"-{last.number}"
        label += f" … {_label(last)}" if last.label else ""
    return [number, naming.after(every[0], first) if first.number else "", label.strip()]


def _label(info: SnapshotInfo) -> str:
    label = f'"{printable(info.label)}"' if info.label else ""
    return label if len(label) <= 26 else label[:24] + "…" + '"'


def _spark(timeline: Timeline, look: Look) -> List[str]:
    numbers = [point.number for point in timeline.points]
    known = [n for n in numbers if n is not None]
    if len(known) < 2 or min(known) == max(known):
        return []
    ends = f"  {_short(min(known))} … {_short(max(known))}"
    width = max(8, (look.width or 120) - len(ends) - 1)
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
            told = {} if point.uncaught is None else {"uncaught": point.uncaught}
            points.append({**entry, "value": None, "type": None, "error": point.error, **told})
        else:
            points.append({**entry, "value": point.value, "type": point.type})
    return {
        "schema": SCHEMA_VERSION,
        "expression": timeline.expression,
        "interrupted": timeline.interrupted,
        "points": points,
    }
