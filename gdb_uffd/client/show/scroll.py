"""Lines in a window that shows some of them.  No gdb here."""

from __future__ import annotations

from typing import List, Sequence

from gdb_uffd.client.show.text import Look, clipped

_LOOK = Look()


class Scroller:
    """`top` and `left`: the first line and column in sight."""

    def __init__(self) -> None:
        self.lines: Sequence[str] = []
        self.top = self.left = 0

    def set(self, lines: Sequence[str]) -> None:
        """Other lines: from their beginning."""
        self.lines = lines
        self.top = self.left = 0

    def down(self, count: int, height: int) -> None:
        """Scroll by `count` lines, backwards if it is negative; the last line stays in sight."""
        most = max(0, len(self.lines) - max(1, height))
        self.top = min(max(0, self.top + count), most)

    def right(self, count: int, width: int) -> None:
        """Scroll by `count` columns, likewise."""
        longest = max((_LOOK.columns(line) for line in self.lines), default=0)
        most = max(0, longest - max(1, width))
        self.left = min(max(0, self.left + count), most)

    def visible(self, width: int, height: int) -> List[str]:
        """At most `height` lines of at most `width` columns."""
        self.down(0, height)  # the window may have grown
        shown = self.lines[self.top : self.top + max(0, height)]
        return [clipped(line, self.left, max(0, width)) for line in shown]
