"""Memory as it was before or after the last report, shown to gdb for a while."""

from __future__ import annotations

import contextlib
from typing import Iterator

import gdb

from gdb_uffd.client.session.asking import FAILURES, Selection, flush_memory
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.protocol.messages_calls import SetView


@contextlib.contextmanager
def memory(session: Session, after: bool, which_all: bool, live_is_after: bool) -> Iterator[None]:
    """While it lasts, gdb reads memory as it was before or after the last report (`which_all`:
    as recorded, or as it is).

    Nothing runs meanwhile: the server refuses that, and the user's own printers may try.
    """
    asked = SetView("after" if after else "before", which_all)
    with _view(session, asked, after != live_is_after):
        yield


@contextlib.contextmanager
def recorded_memory(session: Session, number: int) -> Iterator[None]:
    """While it lasts, gdb reads the memory of that snapshot.  Nothing runs meanwhile."""
    with _view(session, SetView("before", snapshot=number), True):
        yield


@contextlib.contextmanager
def _view(session: Session, asked: SetView, is_another: bool) -> Iterator[None]:
    """`is_another`: gdb's own view is not that one.

    The innermost frame is selected then.  With another one, which may not be there in that memory,
    gdb 13 stops at an assertion of its own when it looks for it after a command (frame.c,
    get_selected_frame).
    """
    selection = Selection() if is_another else None
    if selection is not None:
        with contextlib.suppress(*FAILURES):
            gdb.newest_frame().select()
    session.request(asked)
    session.looking = True
    if selection is not None:
        flush_memory()
    try:
        yield
    finally:
        if selection is not None:
            with contextlib.suppress(*FAILURES):
                gdb.newest_frame().select()
        session.looking = False
        session.request(SetView("now"))
        if selection is not None:
            flush_memory()
            selection.restore()
