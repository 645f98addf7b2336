"""What gdb's symbols tell about dirty pages: the Namer of report_text.py."""

from __future__ import annotations

from typing import Dict, List, Optional

from gdb_uffd.client.names import addresses, heap_damage
from gdb_uffd.client.names.naming import Naming
from gdb_uffd.client.names.variables import no_calls
from gdb_uffd.client.session.asking import captured
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.state import Context
from gdb_uffd.client.show.report_text import NamedChange, WriteSite
from gdb_uffd.protocol.model import CallReport, DirtyPage, FirstWrite


class ReportSymbols:
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
        self._context = session.calls.context if context is None else context
        self._changes: Optional[Dict[int, List[NamedChange]]] = None
        if report is not None and report.heap_trouble is not None:
            heap_damage.tell(session, report)
        addresses.follow_skips()

    def section(self, page: DirtyPage) -> str:
        """The section of the page's first change, the program's own if there is one: by its symbol
        or by `info files`."""
        first = page.first_write
        unchanged = first.address if first is not None and first.address else page.start
        own = [run for run in page.ranges if not run.role] or page.ranges
        address = own[0].address if own else unchanged
        return addresses.section(address)

    def thread(self, tid: int) -> str:
        """gdb's number for that thread, else "TID n"."""
        number = self._session.position.thread_numbers.get(tid)
        return f"TID {tid}" if number is None else str(number)

    def writer(self, first: FirstWrite) -> WriteSite:
        """Function and line of the first write; with the caller that has a line, if it has none."""
        return addresses.writer(first)

    def changes(self, page: DirtyPage) -> List[NamedChange]:
        """What changed on this page, by name; [] for what is scratch."""
        if self._report is None:
            return []
        if self._changes is None:
            naming = Naming(self._session, self._report, self._all, self._context)
            with no_calls():
                self._changes = captured(naming.changes)
        return self._changes.get(page.start, [])
