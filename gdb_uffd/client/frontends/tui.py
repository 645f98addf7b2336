"""`layout uffd`: a window of gdb's text user interface with the pages of the last call.

gdb manual, "TUI Windows In Python".  A gdb without the interface goes without the window.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, List, Optional, cast

import gdb

from gdb_uffd.client.names import exceptions
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import last_call, sessions
from gdb_uffd.client.session.asking import FAILURES, quiet
from gdb_uffd.client.session.printing import look
from gdb_uffd.client.show import report_text
from gdb_uffd.client.show.scroll import Scroller
from gdb_uffd.protocol.model import CallReport, UffdError
from gdb_uffd.terminal import printable

NAME = "uffd"
"""Of the window, and of the layout that has it."""

TITLE = "uffd: the last call"

LAYOUT = f"tui new-layout {NAME} {NAME} 2 src 1 status 0 cmd 1"
"""Ours on top: neighbours share a border, and gdb 13 may draw the upper one over a title."""

_windows: List["PagesWindow"] = []


class PagesWindow:
    """The pages that the last call wrote; redrawn when another call is over."""

    def __init__(self, window: Any) -> None:
        self._window = window
        self._scroller = Scroller()
        self._serial = -1
        self._width = 0
        self._report: Optional[CallReport] = None
        self._session: Optional[sessions.Session] = None
        window.title = TITLE
        _windows.append(self)

    def close(self) -> None:
        """gdb closes the window."""
        if self in _windows:
            _windows.remove(self)

    def render(self) -> None:
        """gdb wants it drawn: it is new, or has another size."""
        self._refresh(self._window.width != self._width)
        self._draw()

    def update(self) -> None:
        """Draw it if there is something new."""
        if self._window.is_valid() and self._refresh(False):
            self._draw()

    def vscroll(self, count: int) -> None:
        """By lines; the arrow keys and pages, when the window has the focus."""
        self._scroller.down(count, self._window.height)
        self._draw()

    def hscroll(self, count: int) -> None:
        """By columns."""
        self._scroller.right(count, self._window.width)
        self._draw()

    def _refresh(self, again: bool) -> bool:
        """Ask for the last report; whether the lines are others now."""
        session = sessions.selected()
        if session is not self._session:
            self._session, self._serial, self._report, again = session, -1, None, True
        if session is None:
            lines = ["no core is spawned in this inferior: `uffd spawn CORE` does that"]
            return self._set(lines) if again else False
        try:
            serial, report, known = last_call.peek(session, self._serial)
        except (UffdError, *FAILURES) as error:
            return self._set([printable(str(error))])
        if serial == self._serial and not again:
            return False
        self._serial = serial
        if not known:
            self._report = report
        return self._set(self._lines(session))

    def _lines(self, session: sessions.Session) -> List[str]:
        if self._report is None:
            return ["nothing has run yet"]
        width = max(20, self._window.width)
        looks = replace(look(), width=width)
        names = ReportSymbols(session, self._report)
        last = last_call.find(session, self._report)
        waited_ms = last_call.waited_ms(session, self._report)
        try:
            lines = report_text.report_lines(self._report, names, looks, waited_ms, True)
        except (UffdError, *FAILURES) as error:
            return [printable(str(error))]
        told = exceptions.text(exceptions.described(session, self._report.uncaught))
        lines += looks.wrapped(f"  {told}") if told else []
        return [*([printable(last.expression)] if last is not None else []), *lines]

    def _set(self, lines: List[str]) -> bool:
        self._width = self._window.width
        if lines == list(self._scroller.lines):
            return False
        self._scroller.set(lines)
        return True

    def _draw(self) -> None:
        if not self._window.is_valid():
            return
        # A line that fills the width would begin another one (curses).
        lines = self._scroller.visible(self._window.width - 1, self._window.height)
        self._window.erase()
        self._window.write("\n".join(lines))


def _before_prompt(_event: object = None) -> None:
    for window in list(_windows):
        with contextlib.suppress(*FAILURES):
            window.update()


def register() -> None:
    """Make the window and the layout, where gdb has the interface."""
    if not hasattr(gdb, "register_window_type"):
        return
    with contextlib.suppress(*FAILURES):
        gdb.register_window_type(NAME, cast(Any, PagesWindow))
        quiet(LAYOUT)
        gdb.events.before_prompt.connect(_before_prompt)
