"""What gdb's side knows of a session between two commands.  No gdb here."""

from __future__ import annotations

from dataclasses import field
from typing import Dict, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_travel import TracePosition
from gdb_uffd.protocol.model import SnapshotInfo


@dataclass(frozen=True)
class Context:
    """The call that a report is about: its expression, and its value's number in the history (0:
    there is none)."""

    expression: str = ""
    number: int = 0


@dataclass
class CallState:
    """gdb's inferior calls, and what it wrote, since the server was last asked what they did."""

    pending: bool = False  # a call was made
    assigned: bool = False  # gdb wrote memory as a command said
    depth: int = 0  # calls under way
    last: int = 0  # address of the function called last
    in_command: bool = False  # `uffd call` is at work and closes its transaction itself
    expression: str = ""  # of that `uffd call`
    context: Context = Context()  # of the last `uffd call`

    def told(self) -> None:
        """What they did is told by whoever asks now."""
        self.pending = self.assigned = False

    def forget(self) -> None:
        """Another state of the program: none is under way, nothing is to be told."""
        self.told()
        self.depth = 0


@dataclass
class PositionState:
    """Where the session stands in its trace, and what gdb knows of that snapshot."""

    snapshot: int  # its number
    signal: int  # that it stopped by, Linux's number
    first_thread: int = 0  # gdb's number of the thread that it stopped in
    thread_numbers: Dict[int, int] = field(default_factory=dict)  # TID -> gdb's number
    moves: int = -1  # made in the server, as far as gdb's side has followed; see travel.py
    libraries: int = -1  # what the server said of the libraries then
    libraries_stale: bool = False  # gdb followed them where the last `uffd call` is undone
    told: Optional[TracePosition] = None  # the last answer of quffd.position
    every: Optional[List[SnapshotInfo]] = None  # the trace's list, once asked for
