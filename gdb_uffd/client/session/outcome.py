"""What evaluating an expression came to."""

from __future__ import annotations

import time
from dataclasses import field
from typing import Any, Dict, List, Optional

from gdb_uffd.dataclass import dataclass


@dataclass
class CallStop:
    """Where the called function stopped instead of returning."""

    reason: str  # "SIGSEGV", "breakpoint 2"
    where: str
    backtrace: List[str]
    breakpoint: bool = False


@dataclass
class Outcome:
    """What the evaluation came to."""

    value: str = ""  # what `print` shows after "$N = "
    number: int = 0  # N
    type: str = ""
    error: str = ""  # gdb's own words, when there is no value
    stop: Optional[CallStop] = None
    uncaught: Optional[Dict[str, Any]] = None  # as names/exceptions.py tells it
    functions: List[int] = field(default_factory=list)  # addresses gdb called
    began: float = field(default_factory=time.perf_counter)
    wall_ms: float = 0.0

    @property
    def unwound(self) -> bool:
        """Whether gdb took the registers back by itself; what was written stays written."""
        return "restored the context" in self.error

    def waited_ms(self) -> float:
        """Milliseconds that the user waited: until what it did is told for the first time."""
        self.wall_ms = self.wall_ms or (time.perf_counter() - self.began) * 1000
        return self.wall_ms
