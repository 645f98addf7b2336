"""A plain `print f ()` that the server ended leaves the thread where it was.

Where a signal or a breakpoint stops a called function, gdb stays there, unless `unwindonsignal` is
on, as on a live process.  An end that a live process does not know (it would block, exit, was
refused, ran too long) is no place to stay in: nothing can go on from it.  gdb looks at the setting
when it has told of the stop, so it is turned on then.
"""

from __future__ import annotations

from typing import List

import gdb

from gdb_uffd.client.session import interrupts, sessions
from gdb_uffd.client.session.asking import quiet
from gdb_uffd.client.session.code import frames

_MAX_FRAMES = 256
_users: List[str] = []
"""What the setting was, while it is ours."""


def _on_stop(event: object) -> None:
    # An end that is no signal has gdb's plain class.
    if type(event) is gdb.StopEvent:
        interrupts.finish(_unwind)


def _unwind() -> None:
    session = sessions.selected()
    if session is None or session.calls.in_command or not session.calls.depth or session.excursion:
        return
    if not _users and not gdb.parameter("unwindonsignal") and _has_dummy():
        quiet("set unwindonsignal on")
        _users.append("off")


def _has_dummy() -> bool:
    """Whether the call's frame is still there: a function can leave for frames of its callers'."""
    return any(frame.type() == gdb.DUMMY_FRAME for frame in frames(_MAX_FRAMES, dummies=True))


def restore() -> None:
    """The call is over."""
    while _users:
        quiet(f"set unwindonsignal {_users.pop()}")


def install() -> None:
    """Look at each stop."""
    gdb.events.stop.connect(_on_stop)
