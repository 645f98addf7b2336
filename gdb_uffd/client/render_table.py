"""The table of a text report: its columns, and where long lines break.  No gdb here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

from gdb_uffd.client.text import Look, wrap_items


@dataclass(frozen=True)
class Row:
    """One range of pages."""

    address: str
    what: str
    items: List[str]
    writer: str


def table(rows: Sequence[Row], look: Look) -> List[str]:
    """Columns: address, what, the changes, the writer; long lines break under the changes."""
    if not rows:
        return []
    addresses = max(len(row.address) for row in rows)
    whats = min(max(len(row.what) for row in rows), 40)
    texts = ["; ".join(row.items) for row in rows]
    widest = max((len(t) for t, row in zip(texts, rows) if row.writer), default=0)
    lines = []
    for row, text in zip(rows, texts):
        head = f"  {row.address:<{addresses}}  {row.what:<{whats}}  "
        writer = row.writer
        one = f"{head}{text:<{min(widest, 60)}}   {writer}" if writer else head + text
        wrapped = [one] if look.fits(one) else wrap_items(look, head, row.items, writer)
        for line in wrapped:
            lines.append(_paint(line.rstrip(), row, look))
    return lines


def _paint(line: str, row: Row, look: Look) -> str:
    if not look.colour:
        return line
    if line.startswith(f"  {row.address}"):
        line = "  " + look.paint("address", row.address) + line[2 + len(row.address) :]
    if row.writer and line.endswith(row.writer):
        line = line[: -len(row.writer)] + look.paint("function", row.writer)
    return line
