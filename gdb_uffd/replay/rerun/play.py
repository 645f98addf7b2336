"""The last run once more, in a process of its own: every write to one object, one by one.

A second diversion of the same snapshot (the clone) gets the state from before the last run, and
then what gdb did in that run, from its log.  The session's own diversion is not touched.
"""

from __future__ import annotations

import signal
import time
from typing import Generator, Iterator, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.ends import RerunDifference
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable, UffdError, page_floor
from gdb_uffd.replay.breakpoints import SLOTS, Breakpoints, Slot, pieces
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.execution import WATCHED
from gdb_uffd.replay.interface import WRITE_WATCH, Resume, Stop
from gdb_uffd.replay.rerun.clone import SLICE_MS, Unseen, make_clone
from gdb_uffd.replay.rerun.last_run import LastRun
from gdb_uffd.replay.rerun.log import (
    CallBegan,
    CallEnded,
    GdbWrote,
    Ran,
    SetRegisters,
    SetSiginfo,
    digest,
)
from gdb_uffd.replay.rerun.writes import Event, PlayEnd, Running, Write

WINDOW = 256
"""Bytes beside a change that are told with it: a value of `MAX_VALUE_BYTES` lies within."""

WINDOW_MAX = 4096
"""Bytes of an object that is told whole, and of a change that is."""

LONGER = 3
"""How many times as long as the first time a run that was interrupted may take."""

COUNTED_MAX = 20_000
"""Writes that are counted beyond those asked for; then the object is watched no more."""


@dataclass(frozen=True)
class _Found:
    """A write as native/pager/watch.h or a debug register tells of it; `pc` 0: the thread stands
    behind the instruction."""

    by: str
    low: int
    high: int
    pc: int = 0
    call: int = -1


ADDRESSES_END = 1 << 63
"""The half above is the kernel's, on either architecture (Documentation/arch/x86/x86_64/mm.rst,
arch/arm64/memory.rst)."""


class Rerun:
    """The last run of `real` again.  `length` 0: only run it.  UffdError when it cannot be.

    `next` gives what happens; `diversion` is the clone, which stands at the write just told."""

    def __init__(self, real: Diversion, address: int, length: int, first: bool, limit: int) -> None:
        real.commit_pending()
        self.last: LastRun = real.last_run.get()
        if length < 0 or length > lib.WATCH_BYTES_MAX:
            raise UffdError(f"{length} bytes cannot be watched: at most 64 MiB can")
        if address < 0 or address + length > ADDRESSES_END:
            raise UffdError(f"{address:#x}: no address that a program can write to")
        self.start, self.end = address, address + length
        self.first, self.limit = first, limit
        self._real = real
        self.pages = not self._fits()
        self._timer = Unseen()
        self._writes = 0
        self._began = self._asked = time.perf_counter()
        self.gave_up = False  # there were more writes than are counted
        self._running: Optional[Resume] = None
        self._watching = False
        self.diversion = make_clone(real, self.last.saved, self.last.brk, real.last_run.undo)
        self._watch = self.diversion.vessel.watch
        self._events = self._play()

    def _fits(self) -> bool:
        """Whether the debug registers have room for the object beside the user's own."""
        arch = self._real.snapshot.arch
        if self.end - self.start > 8 * SLOTS or not arch.traps_after_writes:
            return False
        runs = [step for step in self.last.log.steps if isinstance(step, Ran)]
        return all(Breakpoints.fit([*step.asked.hardware, *self._slots()]) for step in runs)

    def _slots(self) -> List[Slot]:
        length = self.end - self.start
        return [(WRITE_WATCH, at, size) for at, size in pieces(self.start, length)]

    def next(self) -> Event:
        """What happens next; PlayEnd after the last."""
        self._asked = time.perf_counter()
        cut = PlayEnd(self._writes, time.perf_counter() - self._began, compared=False, cut=True)
        return next(self._events, cut)

    def halt(self) -> None:
        """If the process runs, stop it; there is no way to go on then."""
        if self._running is None:
            return
        action, self._running = self._running, None
        check(lib.task_interrupt(self.diversion.vessel.native), doing="stopping the process")
        self._timer.start()
        while self.diversion.runner.wait(action, self._timer) is None:
            pass
        self._timer.stop()
        self._events = iter(())

    def close(self) -> None:
        """PlayEnd the clone.  Idempotent."""
        self._timer.stop()
        self._running = None
        self._events = iter(())
        self.diversion.close()

    # -- playing the log ---------------------------------------------------------------------

    def _play(self) -> Iterator[Event]:
        clone = self.diversion
        clone.begin()
        runs = sum(isinstance(step, Ran) for step in self.last.log.steps)
        other: Optional[RerunDifference] = None
        for step in self.last.log.steps:
            if isinstance(step, GdbWrote):
                yield from self._gdb_writes(step)
            elif isinstance(step, SetRegisters):
                clone.set_registers(step.tid, step.registers)
            elif isinstance(step, SetSiginfo):
                clone.set_siginfo(step.tid, step.data)
            elif isinstance(step, CallBegan):
                clone.call_begin(step.address, step.is_malloc)
            elif isinstance(step, CallEnded):
                clone.call_end()
            else:
                stop = yield from self._run(step)
                runs -= 1
                other = None if stop is None else self._otherwise(step, stop)
            if (other and runs) or (self.first and self._writes):
                break  # what gdb did next rests on how this run ended
        yield self._end(other, bool(runs))

    def _end(self, other: Optional[RerunDifference], cut: bool) -> PlayEnd:
        seconds = time.perf_counter() - self._began
        if other:
            return PlayEnd(self._writes, seconds, other, cut=cut)
        if self.first and self._writes:
            return PlayEnd(self._writes, seconds, compared=False, why="first", cut=True)
        if self._real.last_report is not self.last.report:
            return PlayEnd(self._writes, seconds, compared=False, why="written")
        if any(isinstance(step, Ran) and step.interrupted for step in self.last.log.steps):
            return PlayEnd(self._writes, seconds, compared=False, why="interrupted")
        return PlayEnd(self._writes, seconds, self._differences())

    def _differences(self) -> Optional[RerunDifference]:
        """In which pages this run left something else than the first."""
        again = ffi.new("struct changes *")
        check(lib.transaction_collect(self.diversion.vessel.pager, again), doing="comparing")
        try:
            count, page = self._real.accounts.compare(again)
        finally:
            lib.changes_deinit(again)
        return RerunDifference("pages", count, page) if count else None

    def _otherwise(self, step: Ran, stop: Stop) -> Optional[RerunDifference]:
        """How the end of a run differs from that of the first; None when it does not."""
        if step.interrupted:
            again = self.diversion.runner.run.interrupted
            return None if again else RerunDifference("interrupted")
        if stop != step.stop:
            how = stop.signal, stop.breakpoint, stop.end
            return RerunDifference("stop", 0, 0, *how)
        if digest(self.diversion.threads.get(stop.tid)) != step.digest:
            return RerunDifference("registers")
        return None

    # -- one resume ---------------------------------------------------------------------------

    def _start_watching(self) -> None:
        """Once there is a process."""
        if self._watching or self.start == self.end:
            return
        self._watch.start(self.start, self.end, self.pages)
        self._watching = True

    def _run(self, step: Ran) -> Generator[Event, None, Optional[Stop]]:
        """Until the stop that ended it the first time, or another one; None after the first write
        where only that is wanted."""
        clone, action = self.diversion, step.action
        ours = [] if self.pages else self._slots()
        clone.breakpoints.ask(step.asked)
        clone.breakpoints.hardware[:0] = ours
        clone.prepare(action)
        clone.vessel.set_deadline(0)  # it takes longer than the first time
        self._start_watching()
        stop = clone.runner.start(action)
        while True:
            if stop is None:
                stop = yield from self._wait(step)
            told = self._written(stop, len(ours))
            stop = self._as_the_first_time(stop, len(ours))
            if told is not None:
                self._writes += 1
                if self._writes <= self.limit:
                    yield self._write(told)
                else:
                    self._watch.accept(told.low, told.high)
                    if self._is_time():
                        yield Running()
                if self.first:
                    return None
            if stop.breakpoint != WATCHED:
                return stop
            if self._is_complete(action, stop):
                return Stop(stop.tid, signal.SIGTRAP)
            if self._writes >= self.limit + COUNTED_MAX and self._watching:
                self._stop_watching()
                clone.breakpoints.hardware, ours = [*step.asked.hardware], []
            clone.runner.again(action)
            stop = None

    def _stop_watching(self) -> None:
        """Too many writes: the rest of the run only serves to compare."""
        self._watch.stop()
        self._watching, self.end, self.gave_up = False, self.start, True

    def _is_time(self) -> bool:
        """Whether a slice has passed since whoever asks was told something."""
        now = time.perf_counter()
        if now - self._asked < SLICE_MS / 1000:
            return False
        self._asked = now
        return True

    def _wait(self, step: Ran) -> Generator[Event, None, Stop]:
        """The next stop; tells between slices that it runs on."""
        runner, began = self.diversion.runner, time.perf_counter()
        self._timer.start()
        self._running = step.action
        while True:
            stop = runner.wait(step.action, self._timer)
            if stop is not None:
                self._running = None
                return stop
            if not self._timer.expired:
                continue
            if step.interrupted and time.perf_counter() - began > LONGER * step.seconds + 1:
                lib.task_interrupt(self.diversion.vessel.native)
            else:
                yield Running()
            self._timer.start()

    def _as_the_first_time(self, stop: Stop, ours: int) -> Stop:
        """The stop without the first `ours` debug registers: WATCHED if only they caused it."""
        if not ours or stop.breakpoint not in ("watch", "awatch"):
            return stop
        points = self.diversion.breakpoints
        if not points.hits(until=ours):
            return stop
        theirs = points.hit(skip=ours)
        if theirs is None or not theirs[0]:
            return Stop(stop.tid, signal.SIGTRAP, WATCHED)
        return Stop(stop.tid, signal.SIGTRAP, *theirs)

    def _is_complete(self, action: Resume, stop: Stop) -> bool:
        """Whether the step that was asked for is done, with the write that was just told."""
        if action.kind != "r":
            return action.kind == "s"
        pc = self.diversion.threads.get(stop.tid).pc
        return not action.lo <= pc < action.hi

    # -- what was written ---------------------------------------------------------------------

    def _written(self, stop: Stop, ours: int) -> Optional[_Found]:
        """The write that `stop` tells of; None when there is none."""
        if not self._watching:
            return None
        run = self.diversion.runner.run
        if stop.breakpoint == WATCHED or run.low < run.high:
            by = "kernel" if run.call >= 0 else "program"
            return _Found(by, run.low or run.address, run.high, run.pc, run.call)
        hits = self.diversion.breakpoints.hits(until=ours) if ours else []
        low, high = self._watch.compare(self._watch.all or not self.pages)
        if hits:
            return _Found("program", low or hits[0][1], high)
        return _Found("kernel", low, high, 0, self._watch.call) if low else None

    def _write(self, found: _Found) -> Write:
        low, high = found.low, max(found.low, found.high)
        start, end = self.start, self.end
        if end - start > WINDOW_MAX:
            start = max(start, low - WINDOW)
            end = min(end, min(high, low + WINDOW_MAX) + WINDOW)
        before = self._watch.remembered(start, end)
        self._watch.accept(low, high)
        after = self._watch.remembered(start, end)
        registers = self.diversion.threads.get(self.last.tid)
        return Write(
            found.by, low, high, start, before, after, found.pc or registers.pc,
            bool(found.pc), registers.sp, found.call,
        )  # fmt: skip

    def _gdb_writes(self, step: GdbWrote) -> Iterator[Event]:
        """What gdb itself writes: a string argument, the frame of a call."""
        low = max(step.address, self.start)
        high = min(step.address + len(step.data), self.end)
        if low >= high:
            self.diversion.write_memory(step.address, step.data)
            return
        low_page = max(self.start, min(low, high - 1) - WINDOW)
        high_page = min(self.end, min(high, low + WINDOW_MAX) + WINDOW)
        before = self._bytes(low_page, high_page)
        self.diversion.write_memory(step.address, step.data)
        after = self._bytes(low_page, high_page)
        if self._watching:
            self._watch.accept(*self._watch.compare(True))
        self._writes += 1
        if self._writes <= self.limit:
            by = "gdb" if self.diversion.calls_under_way else "assignment"
            yield Write(by, low, high, low_page, before, after)

    def _bytes(self, start: int, end: int) -> bytes:
        """Zeros for what is not there."""
        parts = []
        for page in range(page_floor(start), end, PAGE_SIZE):
            low, high = max(start, page), min(end, page + PAGE_SIZE)
            try:
                parts.append(self.diversion.read_memory(low, high - low))
            except MemoryUnavailable:
                parts.append(bytes(high - low))
        return b"".join(parts)
