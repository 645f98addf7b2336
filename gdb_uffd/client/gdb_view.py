"""Memory as it was before or after the last report, shown to gdb for a while."""

from __future__ import annotations

import contextlib
from typing import Iterator

from gdb_uffd.client.gdb_session import Session
from gdb_uffd.client.gdb_util import flush_memory


@contextlib.contextmanager
def memory(session: Session, after: bool, which_all: bool, live_is_after: bool) -> Iterator[None]:
    """While it lasts, gdb reads memory as it was before or after the last report (`which_all`:
    as recorded, or as it is).

    Nothing runs meanwhile: the server refuses that, and the user's own printers may try.
    """
    session.request("view", {"which": "after" if after else "before", "all": which_all})
    session.looking = True
    if after != live_is_after:
        flush_memory()
    try:
        yield
    finally:
        session.looking = False
        session.request("view", {"which": "now"})
        if after != live_is_after:
            flush_memory()


@contextlib.contextmanager
def recorded_memory(session: Session, number: int) -> Iterator[None]:
    """While it lasts, gdb reads the memory of that snapshot.  Nothing runs meanwhile."""
    session.request("view", {"which": "before", "snapshot": number})
    session.looking = True
    flush_memory()
    try:
        yield
    finally:
        session.looking = False
        session.request("view", {"which": "now"})
        flush_memory()
