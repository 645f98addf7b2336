"""What gdb's symbols tell about dirty pages: the Namer of render.py."""

from __future__ import annotations

from typing import Dict, List, Optional

from gdb_uffd.client import gdb_heap_damage, gdb_places
from gdb_uffd.client.context import Context
from gdb_uffd.client.gdb_naming import Naming
from gdb_uffd.client.gdb_session import Session
from gdb_uffd.client.gdb_util import captured
from gdb_uffd.client.gdb_variables import no_calls
from gdb_uffd.client.render import Change, Writer
from gdb_uffd.model import CallReport, DirtyPage, FirstWrite


class Symbols:
    """Names for one report of `session`; `which_all` as in quffd.image."""

    def __init__(
        self,
        session: Session,
        report: Optional[CallReport] = None,
        which_all: bool = False,
        context: Optional[Context] = None,
    ) -> None:
        self._session = session
        self._report = report
        self._all = which_all
        self._context = session.context if context is None else context
        self._changes: Optional[Dict[int, List[Change]]] = None
        if report is not None and report.heap_trouble is not None:
            gdb_heap_damage.tell(session, report)
        gdb_places.follow_skips()

    def section(self, page: DirtyPage) -> str:
        """The section of the page's first change, the program's own if there is one: by its symbol
        or by `info files`."""
        first = page.first_write
        unchanged = first.address if first is not None and first.address else page.start
        own = [run for run in page.runs if not run.role] or page.runs
        address = own[0].address if own else unchanged
        return gdb_places.section(address)

    def thread(self, tid: int) -> str:
        """gdb's number for that thread, else "TID n"."""
        number = self._session.thread_numbers.get(tid)
        return f"TID {tid}" if number is None else str(number)

    def writer(self, first: FirstWrite) -> Writer:
        """Function and line of the first write; with the caller that has a line, if it has none."""
        return gdb_places.writer(first)

    def changes(self, page: DirtyPage) -> List[Change]:
        """What changed on this page, by name; [] for what is scratch."""
        if self._report is None:
            return []
        if self._changes is None:
            naming = Naming(self._session, self._report, self._all, self._context)
            with no_calls():
                self._changes = captured(naming.changes)
        return self._changes.get(page.start, [])
