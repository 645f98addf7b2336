"""What gdb did to a diversion in one transaction, so that it can be done again."""

from __future__ import annotations

from dataclasses import field
from typing import List, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import Registers
from gdb_uffd.replay.breakpoints import Asked, Breakpoints
from gdb_uffd.replay.interface import Resume, Stop

LOG_BYTES = 64 << 20
"""What a log may hold; a longer transaction cannot be run again."""

_STEP_BYTES = 1000  # a rough figure for one step's Python objects
_REGISTERS_BYTES = 4000


@dataclass(frozen=True)
class GdbWrote:
    """gdb wrote memory."""

    address: int
    data: bytes


@dataclass(frozen=True)
class SetRegisters:
    """gdb wrote a thread's registers."""

    tid: int
    registers: Registers


@dataclass(frozen=True)
class SetSiginfo:
    """gdb wrote a thread's siginfo_t."""

    tid: int
    data: bytes


@dataclass(frozen=True)
class CallBegan:
    """gdb began an inferior call."""

    address: int
    is_malloc: bool


@dataclass(frozen=True)
class CallEnded:
    """That call ended."""


@dataclass(frozen=True)
class Ran:
    """A resume, with the breakpoints of that moment, and how it ended: the stop, a digest of the
    general registers, the seconds it took.  `interrupted`: by Ctrl-C or for its time, so no run
    ends there by itself."""

    action: Resume
    asked: Asked
    stop: Stop
    digest: int
    seconds: float
    interrupted: bool


Step = Union[GdbWrote, SetRegisters, SetSiginfo, CallBegan, CallEnded, Ran]


@dataclass
class RunLog:
    """The steps in their order.  `too_long`: some are missing."""

    steps: List[Step] = field(default_factory=list)
    too_long: bool = False
    _bytes: int = 0

    def wrote(self, address: int, data: bytes) -> None:
        """gdb wrote memory."""
        self._add(GdbWrote(address, data), len(data))

    def set_registers(self, tid: int, registers: Registers) -> None:
        """gdb wrote registers; the object is not changed afterwards."""
        self._add(SetRegisters(tid, registers), _REGISTERS_BYTES)

    def set_siginfo(self, tid: int, data: bytes) -> None:
        """gdb wrote a siginfo_t."""
        self._add(SetSiginfo(tid, data), len(data))

    def began(self, address: int, is_malloc: bool) -> None:
        """gdb began a call."""
        self._add(CallBegan(address, is_malloc))

    def ended(self) -> None:
        """A call ended."""
        self._add(CallEnded())

    def ran(
        self,
        action: Resume,
        points: Breakpoints,
        stop: Stop,
        after: Registers,
        seconds: float,
        interrupted: bool,
    ) -> None:
        """The process ran until `stop`, which it reached with the registers `after`."""
        asked = points.asked()
        self._add(Ran(action, asked, stop, digest(after), seconds, interrupted))

    def _add(self, step: Step, more: int = 0) -> None:
        """Append, unless the log is full."""
        size = _STEP_BYTES + more
        if self.too_long or self._bytes + size > LOG_BYTES:
            self.too_long = True
            self.steps.clear()
            return
        self._bytes += size
        self.steps.append(step)

    @property
    def functions(self) -> List[int]:
        """Addresses of the functions that gdb called, its own malloc left out."""
        return [s.address for s in self.steps if isinstance(s, CallBegan) and not s.is_malloc]


def digest(registers: Registers) -> int:
    """A number by which to tell whether two runs left the same general registers."""
    return hash(tuple(registers.gpr))
