"""What running the last call again tells of."""

from __future__ import annotations

from typing import Literal, Optional, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import RerunDifference


@dataclass(frozen=True)
class Running:
    """It runs on."""


@dataclass(frozen=True)
class Write:
    """One write.  [low, high): what it changed, empty at its address where it wrote what was there;
    `before` and `after` are of the window's bytes.  `pc`: the instruction, or (`exact` False) where
    the thread stands behind it.  `call`: the system call that wrote, -1 for none."""

    by: str  # "program", "kernel", "gdb" or "assignment"
    low: int
    high: int
    window: int
    before: bytes
    after: bytes
    pc: int = 0
    exact: bool = True
    sp: int = 0
    call: int = -1


@dataclass(frozen=True)
class PlayEnd:
    """It is over; see RerunEnd of protocol/messages_rerun.py."""

    writes: int
    seconds: float
    differs: Optional[RerunDifference] = None
    compared: bool = True
    why: Literal["", "first", "written", "interrupted"] = ""
    cut: bool = False


Event = Union[Running, Write, PlayEnd]
