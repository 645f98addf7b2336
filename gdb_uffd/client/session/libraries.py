"""gdb's list of libraries, where the program's is another by no stop that gdb saw.

gdb follows what a call loads and unloads (the dynamic linker has a place for a breakpoint, and it
reads the list there), and is not told when that is undone.
"""

from __future__ import annotations

import contextlib

import gdb

from gdb_uffd.client.session import file_search
from gdb_uffd.client.session.asking import FAILURES, setting
from gdb_uffd.client.session.sessions import Session


def update() -> None:
    """Let gdb's list follow, with the symbols unless the user reads those alone; breakpoints in
    what is back are set again, those in what is gone wait."""
    command = "sharedlibrary" if gdb.parameter("auto-solib-add") else "info sharedlibrary"
    with contextlib.suppress(*FAILURES), setting("print symbol-loading", "off"):
        gdb.execute(command, to_string=not file_search.may_ask())


def follow(session: Session) -> None:
    """The same behind a call that is undone, once what it did has been told."""
    if session.position.libraries_stale:
        session.position.libraries_stale = False
        update()
