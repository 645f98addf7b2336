"""What running the last call again tells of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union


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
    """It is over.  `differs`: "" when this run left what the first one did; `compared` False: that
    cannot be told, `why` says why.  `cut`: it did not run to its end."""

    writes: int
    seconds: float
    differs: str = ""
    compared: bool = True
    why: str = ""
    cut: bool = False


Event = Union[Running, Write, PlayEnd]
