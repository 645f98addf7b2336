"""Tables: columns, and where long lines break: between words, under their column.  No gdb here."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Sequence

from gdb_uffd.client.show.text import FAR_LEFT, MIN_COLUMN, Look
from gdb_uffd.dataclass import dataclass

MAX_COLUMN = 40
"""Columns that a cell's neighbours are aligned behind; a wider one pushes them."""

MAX_ALIGNED = 60
"""The same for what stands before a writer."""


@dataclass(frozen=True)
class PageRow:
    """One range of pages.  `items`, `writer` may be painted."""

    address: str
    what: str
    items: List[str]
    writer: str


def table(rows: Sequence[PageRow], look: Look) -> List[str]:
    """Columns: address, what, the changes, the writer; of a row that is too wide the changes have
    lines of their own, and so has the writer."""
    if not rows:
        return []
    texts = ["; ".join(row.items) for row in rows]
    widest = max((look.columns(t) for t, row in zip(texts, rows) if row.writer), default=0)
    cells = [[f"  {look.paint('address', row.address)}", row.what] for row in rows]
    lines: List[str] = []
    for head, row, text in zip(aligned(cells, look), rows, texts):
        one = text
        if row.writer:
            one = f"{look.pad(text, min(widest, MAX_ALIGNED))}   {row.writer}"
        parts = [one] if look.fits(head + one) else [*_packed(head, row.items, look), row.writer]
        lines += under(head, [part for part in parts if part], look)
    return lines


def _packed(head: str, items: Sequence[str], look: Look) -> List[str]:
    """Changes that fit on a line together are one part."""
    parts = [""]
    for item in items:
        joined = f"{parts[-1]}; {item}" if parts[-1] else item
        parts[-1:] = [joined] if look.fits(head + joined) or not parts[-1] else [parts[-1], item]
    return parts


def listed(head: str, items: Sequence[str], look: Look) -> List[str]:
    """`head`, and the items behind it joined by "; ", all under one column."""
    return under(head, _packed(head, items, look), look)


def aligned(rows: Sequence[Sequence[str]], look: Look, gap: str = "  ") -> List[str]:
    """Each row's cells, padded to columns, and a gap behind the last."""
    if not rows:
        return []
    widths = [min(max(map(look.columns, cells)), MAX_COLUMN) for cells in zip(*rows)]
    return ["".join(look.pad(c, w) + gap for c, w in zip(row, widths) if w) for row in rows]


def under(head: str, parts: Sequence[str], look: Look) -> List[str]:
    """`head`, and the parts behind it, a line each, or several; all under one column, what goes on
    of one among others a bit further."""
    column = look.columns(head)
    lines: List[str] = []
    if look.width - column < MIN_COLUMN and not all(look.fits(head + part) for part in parts):
        lines, column = look.wrapped(head.rstrip()), FAR_LEFT
        head = " " * column
    narrow = replace(look, width=max(1, look.width - column) if look.width else 0)
    for part in parts:
        for text in narrow.wrapped(part, 2 if len(parts) > 1 else 0):
            lines.append((look.tidy(head) + text).rstrip())
            head = " " * column
    return lines
