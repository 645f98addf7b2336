"""What the last `uffd call` evaluated; and who wants to know when a call is over."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, List, Optional, Tuple
from weakref import WeakKeyDictionary

from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import LastReport, Peek
from gdb_uffd.protocol.model import CallReport, UffdError


@dataclass(frozen=True)
class Last:
    """A call that is over; `outcome` is commands/call.py's."""

    report: CallReport
    outcome: Any
    expression: str


_last: "WeakKeyDictionary[Session, Last]" = WeakKeyDictionary()

observers: List[Callable[[Session, Optional[Last]], None]] = []
"""Called after a call is over and told; with None where it was no `uffd call`."""


def note(session: Session, last: Last) -> None:
    """An `uffd call` of `session` is over."""
    _last[session] = last


def find(session: Session, report: Optional[CallReport]) -> Optional[Last]:
    """The `uffd call` whose report that is; None where it is another command's."""
    last = _last.get(session)
    if last is None or report is None or last.report.serial != report.serial:
        return None
    return last


def waited_ms(session: Session, report: Optional[CallReport]) -> Optional[Callable[[], float]]:
    """Tells how long the user waited for the `uffd call` of that report."""
    last = find(session, report)
    return None if last is None else last.outcome.waited_ms


def peek(session: Session, known: int) -> Tuple[int, Optional[CallReport], bool]:
    """The number of the last report; the report, unless that number is `known`; whether it is.

    Closes no transaction: a stretch of steps stays one.
    """
    told = session.request(Peek(known))
    return told.serial, told.report, told.known


def tell(session: Session, last: Optional[Last]) -> None:
    """Tell the observers; what goes wrong there is not the call's."""
    for observer in observers:
        with contextlib.suppress(*FAILURES, UffdError):
            observer(session, last)


def files_kept(session: Session) -> List[str]:
    """The files that kept calls read since the snapshot: their bytes may be in its memory."""
    since = session.request(LastReport(all=True))
    return since.files_read if since is not None else []
