"""`set uffd control-sequences`: what a called function may do to the terminal by printing."""

from __future__ import annotations

import os
import stat
from typing import Optional, Tuple
from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.session.asking import machine_interface
from gdb_uffd.client.session.printing import charset, write
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.settings import value
from gdb_uffd.protocol.messages import SetOutput
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.terminal import Output

AUTO, SHOWN, RAW = CHOICES = ("auto", "shown", "raw")

_told: "WeakKeyDictionary[Session, Tuple[Optional[str], int]]" = WeakKeyDictionary()
"""What each server was told; one that was told nothing shows them, in UTF-8."""


def _raw() -> bool:
    """Whether output goes on as it is: a program reads it.  The machine interface quotes it."""
    wanted = value("control-sequences")
    if wanted != AUTO:
        return wanted == RAW
    if machine_interface():
        return True
    if gdb.parameter("logging enabled") and gdb.parameter("logging redirect"):
        return True
    try:
        mode = os.fstat(1).st_mode
    except OSError:
        return False
    # `gdb -batch` prints what a target does on its standard error.
    return (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not os.isatty(2)


def greet(session: Session) -> None:
    """A connection is new: it knows nothing."""
    _told.pop(session, None)
    tell(session)


def tell(session: Session) -> None:
    """Tell the server of `session` what holds now, unless it knows.  UffdError."""
    columns = 0 if machine_interface() else int(gdb.parameter("width") or 0)
    wanted = None if _raw() else charset(), columns
    if _told.get(session) != wanted:
        session.request(SetOutput(columns, wanted[0]))
        _told[session] = wanted


def print_rest(report: CallReport) -> None:
    """What gdb has not shown yet: text that the program still held in its stdio buffers."""
    rest = report.output.encode("utf-8", "surrogateescape")[max(0, report.streamed) :]
    if not _raw():
        clean = Output()
        rest = clean.feed(rest) + clean.rest() + clean.plain()
    text = rest.decode("utf-8", "replace")
    if report.output and not report.output.endswith("\n"):
        text += "\n"
    if text:
        write(text)
