"""What a snapshot is called by: the thread, the function, the signal, as gdb knows them."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Dict, List, Optional, Tuple

import gdb

from gdb_uffd.client.session.asking import FAILURES, decoded, quiet
from gdb_uffd.client.session.code import function_block
from gdb_uffd.dataclass import dataclass


@dataclass
class Where:
    """Where a snapshot is taken; facts of a SnapshotInfo."""

    tid: int
    thread_name: str
    function: str


def here(thread: gdb.InferiorThread) -> Where:
    """The selected thread and its innermost function, by its frame."""
    function = ""
    with contextlib.suppress(*FAILURES):
        function = decoded(lambda: gdb.newest_frame().name())
    name = decoded(lambda: thread.name)
    return Where(thread.ptid[1] or thread.ptid[0], name, function)


_functions: Dict[int, str] = {}


def function_at(pc: int) -> str:
    """Name of the function that holds `pc`, without a frame; "" when there is none."""
    name = _functions.get(pc)
    if name is None:
        block = function_block(pc) if pc else None
        name = decoded(lambda: str(block.function)) if block is not None else ""
        if not name:
            with contextlib.suppress(*FAILURES):
                words = quiet(f"info symbol {pc:#x}").split()
                name = "" if words[:1] == ["No"] else words[0] if words else ""
        if len(_functions) > 4096:
            _functions.clear()
        _functions[pc] = name
    return name


def trapped() -> bool:
    """Whether the program stopped by a SIGTRAP of its own: gdb tells it by no event."""
    with contextlib.suppress(*FAILURES):
        return "with signal SIGTRAP" in quiet("info program")
    return False


_ending: List[int] = []
"""The wait status of a program whose end gdb did not come to see: it gives up where a thread goes
while it looks at it, and the next time tells of an end without saying how."""


def note_ending(status: int) -> None:
    """The kernel says that the program is ending, with that wait status."""
    _ending[:] = [status]


def end_of(event: Optional[gdb.ExitedEvent]) -> Tuple[Optional[int], int]:
    """(exit code, or None; else the number of the signal, 0 where nobody knows)."""
    code = getattr(event, "exit_code", None)
    if code is not None:
        return int(code), 0
    number = gdb.convenience_variable("_exitsignal")
    if number is not None:
        return None, int(number)
    status = _ending[0] if _ending else 0
    if _ending and os.WIFEXITED(status):
        return os.WEXITSTATUS(status), 0
    return None, os.WTERMSIG(status)


def ended(event: Optional[gdb.ExitedEvent]) -> str:
    """The same in words."""
    code, number = end_of(event)
    if code is not None:
        return f"the program exited with code {code}"
    try:
        return f"the program was killed by {signal.Signals(number).name}"
    except ValueError:
        return "the program ended"
