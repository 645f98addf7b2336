"""A call that runs for long: whether it goes in a circle that nobody here ends.

Where other threads were recorded, a call may spin until one of them has done something: they do
not run.  The vessel is stopped for a look now and then.  Where it stands as it stood at an earlier
look, it is stepped, and if it comes around to stand exactly so (the registers, every byte of the
pages that this call has written, no system call in between that could have changed what another one
answers, no timer set), it will do so for ever.  A call that makes any progress never does.
"""

from __future__ import annotations

import signal
import time
import zlib
from typing import Any, Callable, Optional, Set, Tuple

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, TELLING, MemoryUnavailable
from gdb_uffd.replay.interface import Stop
from gdb_uffd.replay.vessel import Vessel

FIRST_NS = 1_000_000_000
"""From when on a call runs for long."""

_LOOK_NS = 3_000_000
_LOOKS = 64  # in a row, within a circle of hundreds of instructions two meet
_PAGES_MAX = 1024  # written, and compared at each look
_STEPS_MAX = 1 << 14
"""Instructions of a circle."""

_COMPARED_MAX = 16  # times on the way around

_NO_TIMER = (1 << 64) - 1

State = Tuple[Any, ...]


class Circle:
    """The looks at one run; they come as its deadline, which may also be a real one."""

    def __init__(self, vessel: Vessel) -> None:
        self._vessel = vessel
        self._changes = ffi.gc(ffi.new("struct changes *"), lib.changes_deinit)
        self._end = self._began = self._pause = 0
        self._looks = 0
        self._seen: Set[State] = set()
        self.looking = False
        self.closed = False  # the last look saw a circle

    def begin(self, wanted: bool) -> None:
        """The vessel is about to run; `wanted`: what runs is a call that may go in a circle."""
        self._end, self._began = self._vessel.deadline_ns, time.monotonic_ns()
        self._looks, self._pause, self.closed = 0, FIRST_NS, False
        self._seen.clear()
        self.looking = wanted
        if wanted:
            self._next(FIRST_NS)

    def _next(self, pause: int) -> None:
        at = time.monotonic_ns() + pause
        self._vessel.set_deadline(min(at, self._end) if self._end else at)

    def is_over(self) -> bool:
        """Whether the deadline that has passed is the real one."""
        return not self.looking or bool(self._end and time.monotonic_ns() >= self._end)

    def seconds(self) -> float:
        """How long it has run."""
        return (time.monotonic_ns() - self._began) / 1e9

    def look(self, step: Callable[[], Stop]) -> Optional[Stop]:
        """The vessel stands, after that deadline: a stop where it ends, `closed` where it goes in a
        circle; None where it is to run on.  `step` lets it make one instruction."""
        state = self.state()
        if state is not None and state in self._seen:
            # It need not have run since: that remains to be seen, step by step.
            self._vessel.set_deadline(self._end)
            return self._around(state, step)
        if state is not None:
            self._seen.add(state)
        self._go_on(state is None)
        return None

    def _around(self, state: State, step: Callable[[], Stop]) -> Optional[Stop]:
        compared, pc = 0, self._pc()
        for _ in range(_STEPS_MAX):
            stop = step()
            if stop.signal != signal.SIGTRAP or stop.breakpoint or stop.end is not None:
                return stop
            if self._pc() != pc:
                continue
            now = self.state()
            if now is None:
                break
            if now == state:
                self.closed = True
                return stop
            # A register may tell of the stepping itself (r11, behind a system call).
            state, compared = now, compared + 1
            if compared == _COMPARED_MAX:
                break
        self._go_on(True)
        return None

    def _pc(self) -> int:
        return self._vessel.gpr()[self._vessel.arch.pc]

    def _go_on(self, after_a_while: bool) -> None:
        """The vessel is to run on, until the next look."""
        self._looks += 1
        if after_a_while or self._looks >= _LOOKS:
            self._looks, self._pause = 0, self._pause * 2
            self._seen.clear()
        self._next(_LOOK_NS if self._looks else self._pause)

    def state(self) -> Optional[State]:
        """How the vessel stands; None when that is not all known."""
        vessel = self._vessel
        tells = vessel.engine.choice.name in TELLING
        if not tells or lib.timers_left(vessel.native) != _NO_TIMER:
            return None  # what is written is known afterwards only; something is still to come
        if vessel.dirty_pages() > _PAGES_MAX:
            return None
        lib.changes_deinit(self._changes)
        if lib.transaction_collect(vessel.pager, self._changes) < 0 or self._changes.truncated:
            return None
        pages = [int(self._changes.at[i].page) for i in range(self._changes.count)]
        try:
            written = tuple((page, zlib.crc32(vessel.read(page, PAGE_SIZE))) for page in pages)
        except MemoryUnavailable:
            return None
        return tuple(vessel.gpr()), self._extended(), written, vessel.felt_calls

    def _extended(self) -> int:
        return zlib.crc32(self._vessel.regset(self._vessel.arch.vectors.note, needed=False))
