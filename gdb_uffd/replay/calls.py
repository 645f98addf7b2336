"""gdb's calls of functions: which are under way, and which came to their end."""

from __future__ import annotations

from dataclasses import field
from typing import List, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import lib
from gdb_uffd.protocol.model import MemoryUnavailable, Registers
from gdb_uffd.replay.state import ThreadStates
from gdb_uffd.replay.vessel import Vessel


@dataclass
class _Call:
    is_malloc: bool  # gdb's own, for an argument
    floor: int = 0  # the stack pointer with which it began; 0: it has not run
    home: int = 0  # where it returns to
    returned: bool = False
    wanted: int = 0  # of malloc: how many bytes


@dataclass
class Calls:
    """The calls of one transaction; gdb's nest, since it makes room for an argument while the call
    that takes it is under way.  `unfinished`: one has ended otherwise than by returning.
    `rooms`: what gdb's own malloc returned, with the sizes; `late`: of them, since when something
    else ran."""

    under_way: List[_Call] = field(default_factory=list)
    unfinished: bool = False
    rooms: List[Tuple[int, int]] = field(default_factory=list)
    late: List[int] = field(default_factory=list)
    _filled: int = 0  # bytes that gdb wrote to the last room, one after the other

    @property
    def floor(self) -> int:
        """Of the innermost, 0 where there is none."""
        return self.under_way[-1].floor if self.under_way else 0

    @property
    def in_malloc(self) -> bool:
        """Whether the innermost is gdb's own."""
        return bool(self.under_way) and self.under_way[-1].is_malloc

    def begin(self, is_malloc: bool) -> None:
        """One begins, inside of those that are under way."""
        self.under_way.append(_Call(is_malloc))

    @property
    def begins(self) -> bool:
        """Whether the innermost has not run yet."""
        return bool(self.under_way) and not self.floor

    def run(self, vessel: Vessel, registers: Registers) -> None:
        """The thread is about to run, and stands at the function's beginning."""
        call, link = self.under_way[-1], vessel.arch.link
        call.floor = registers.sp
        call.wanted = registers.gpr[vessel.arch.arguments[0]]
        if link is not None:
            call.home = registers.gpr[link]
            return
        try:
            call.home = int.from_bytes(vessel.read(registers.sp, 8), "little")
        except MemoryUnavailable:
            call.home = 0

    def stopped(self, registers: Registers) -> None:
        """The thread stands there now."""
        if self.under_way:
            call = self.under_way[-1]
            call.returned = bool(call.home) and registers.pc == call.home

    def writer(self, address: int, length: int) -> int:
        """Who it is when gdb writes there, a native constant.

        gdb begins a call before it pushes a frame and the arguments; but an array that is
        assigned to a pointer gets its room by a call that is over by then.
        """
        fills = bool(self.rooms) and address == self.rooms[-1][0] + self._filled
        if fills and self._filled < self.rooms[-1][1]:
            self._filled += length
            return int(lib.WRITER_GDB | lib.WRITER_MALLOC)
        return int(lib.WRITER_GDB if self.under_way else lib.WRITER_ASSIGNMENT)

    def end(self, threads: ThreadStates, tid: int, program_ran: bool) -> None:
        """The innermost, of thread `tid`, is over, if there is one; `program_ran`: something else
        than gdb's own malloc did so far."""
        if not self.under_way:
            return
        call = self.under_way.pop()
        # One that never ran, since an argument could not be read, has nothing to return from.
        self.unfinished |= bool(call.floor) and not call.returned
        if call.is_malloc and call.returned:
            registers = threads.get(tid)
            room = registers.gpr[registers.arch.result]
            if room:
                self.rooms.append((room, call.wanted))
                self._filled = 0
                if program_ran:
                    self.late.append(room)


class Unfinished:
    """Calls that were kept and have not returned: gdb leaves their frames to the user."""

    def __init__(self, threads: ThreadStates) -> None:
        self._threads = threads
        self._standing: List[Tuple[int, int]] = []  # thread, stack pointer before; latest last

    def note(self, tid: int, before: int) -> None:
        """One of thread `tid`, which began below the stack pointer `before`."""
        self._standing.append((tid, before))

    def any(self) -> bool:
        """Whether the frames of one are still there."""
        while self._standing:
            tid, before = self._standing[-1]
            if self._threads.get(tid).sp < before:
                return True
            self._standing.pop()
        return False

    def forget(self) -> None:
        """Everything is the snapshot again."""
        self._standing.clear()
