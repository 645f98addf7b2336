"""Snapshots that are taken by themselves: at each hit of a location, or every so often."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
from typing import Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.recording import ptrace, recordings
from gdb_uffd.client.recording.freeze import NotStill
from gdb_uffd.client.recording.record_options import parse_at, parse_interval
from gdb_uffd.client.recording.recordings import Recording
from gdb_uffd.client.recording.snapshot_names import Where, here
from gdb_uffd.client.session import interrupts
from gdb_uffd.client.session.asking import FAILURES, quiet
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.show import text
from gdb_uffd.protocol.model import UffdError

PROGRESS_S = 1.0
"""An interactive session hears of the snapshots at most so often."""

_progress = 0.0


def _step_in_place(recording: Recording) -> None:
    """A thread that is stepped off a breakpoint elsewhere ("displaced") has a program counter and
    code of gdb's own making for that moment: no snapshot shall show it."""
    old = gdb.parameter("displaced-stepping")  # None: "auto"
    if old is not False:
        quiet("set displaced-stepping off")
        text = "on" if old else "auto"

        def give_back(_at_prompt: bool) -> None:
            # Must not fail: a command that fails in the middle of an event makes gdb believe
            # that the program has stopped (async_enable_stdin in gdb's python.c).
            quiet(f"set displaced-stepping {text}")

        recording.on_end.append(give_back)


_retired: "List[SnapshotBreakpoint]" = []  # to be deleted at the next prompt


def _sweep(_event: object = None) -> None:
    retired, _retired[:] = list(_retired), []
    for each in retired:
        if each.is_valid():
            each.delete()
    with contextlib.suppress(RuntimeError, SystemError, ValueError):  # it was not connected
        gdb.events.before_prompt.disconnect(_sweep)


class SnapshotBreakpoint(gdb.Breakpoint):
    """A breakpoint that takes a snapshot and lets the program go on; gdb lists it as any other.

    Where gdb debugs through another program, `stop` cannot look at all threads: there it
    is a stop with commands that continue.
    """

    def __init__(self, recording: Recording, words: str, parsed: Tuple[str, str, int, int]) -> None:
        location, condition, every, limit = parsed
        super().__init__(location)
        try:
            # Checked by gdb, in the location's scope; but gdb asks `stop` first, whatever the
            # condition says (bpstat_check_breakpoint_conditions), so it is evaluated there.
            self.condition = condition or None
            self.condition = None
        except FAILURES:
            self.delete()
            raise
        self.wanted = condition
        self.recording = recording
        self.every, self.limit = every, limit
        self.reached = self.hits = self.taken = 0  # `hits`: of those where the condition held
        self.where = location
        self.silent = True
        if recording.local is None:
            script = f"python import {__name__}; {__name__}.hit({self.number})"
            self.commands = f"silent\n{script}\ncontinue"
        else:
            # Never run, since it never stops; `info breakpoints` shows what it is by it.
            self.commands = f"python pass  # uffd record at {words}"

    def stop(self) -> bool:
        """Whether gdb shall stop."""
        try:
            if not self._meant():
                return False
            with recordings.uninterrupted():
                return self._stop()
        except KeyboardInterrupt:
            recordings.interrupt_later()
            return False
        except FAILURES as error:  # as gdb does it with a condition that it cannot evaluate
            say(f"Error in testing the condition of `uffd record at {self.where}`: {error}")
            return True

    def _meant(self) -> bool:
        """Whether the condition holds here, where snapshots may be taken; gdb.error."""
        if recordings.active() is not self.recording:
            return False
        if gdb.selected_inferior().num != self.recording.number:
            return False  # gdb sets a breakpoint in every program that has the location
        if self.recording.full or (self.limit and self.taken >= self.limit):
            return False
        self.reached += 1
        return not self.wanted or bool(gdb.parse_and_eval(self.wanted))

    def _stop(self) -> bool:
        self.hits += 1
        if self.hits % self.every:
            return False
        if self.recording.local is None:
            return True
        began = time.monotonic_ns()
        thread = gdb.selected_thread()
        if thread is not None:
            self.take(Where(thread.ptid[1], ptrace.comm(thread.ptid[1]), ""), began)
        return False

    def take(self, where: Where, began: int) -> None:
        """Take the snapshot; a failure ends the recording."""
        if _take(self.recording, where, began):
            self.taken += 1
            if self.taken == self.limit and _interactive():
                # A breakpoint must not be changed while it is decided about.  Not where gdb may be
                # about to quit: gdb 13 crashes when an event of Python's is left over then.
                gdb.post_event(self._exhausted)

    def retire(self, at_prompt: bool) -> None:
        """The recording has ended.  In the middle of an event gdb still uses its breakpoints."""
        if at_prompt:
            _retired.append(self)
            _sweep()
        else:
            if not _retired:
                gdb.events.before_prompt.connect(_sweep)
            _retired.append(self)

    def _exhausted(self) -> None:
        if self.is_valid():
            self.enabled = False
        counted = text.plural(self.taken, "snapshot")
        say(f"[uffd: {counted} at {self.where}, as many as were asked for]")


def unhit() -> List[str]:
    """What is to be said of locations of ours that took no snapshot, a line each."""
    out = []
    for each in gdb.breakpoints():
        if not isinstance(each, SnapshotBreakpoint) or each.taken:
            continue
        if each.pending:
            out.append(f"{each.where}: no such location was found in the program")
        elif each.hits:
            out.append(
                f"{each.where}: hit {text.plural(each.hits, 'time')}, of {each.every} a snapshot"
            )
        elif each.reached:
            times = text.plural(each.reached, "time")
            out.append(f"{each.where}: reached {times}, but never with {each.wanted}")
        else:
            out.append(f"{each.where}: never reached; gdb put it {_places(each)}")
    return out


_PLACE = re.compile(r"\bin (.+?) at (\S+:\d+)")


def _places(point: gdb.Breakpoint) -> str:
    """ "in tick () at t.c:3", where a breakpoint is, by gdb's own list."""
    with contextlib.suppress(*FAILURES):
        listed = quiet(f"info breakpoints {point.number}")
        found = [f"in {name} at {os.path.basename(at)}" for name, at in _PLACE.findall(listed)]
        if found:
            return " and ".join(dict.fromkeys(found)) + " only"
        addresses = re.findall(r"\b0x[0-9a-f]{8,16}\b", listed)
        if addresses:
            return "at " + " and ".join(dict.fromkeys(addresses))
    return "nowhere"


def hit(number: int) -> None:
    """A breakpoint of ours stopped a remote target: its commands call this, then continue."""
    for each in gdb.breakpoints():
        if isinstance(each, SnapshotBreakpoint) and each.number == number:
            thread = gdb.selected_thread()
            if thread is not None:
                each.take(here(thread), time.monotonic_ns())


def _take(recording: Recording, where: Where, began: int) -> bool:
    try:
        recording.take("", where, began)
    except NotStill:
        return False  # the next time
    except UffdError as error:
        recordings.fail(error)
        return False
    _tell(recording)
    return True


def _tell(recording: Recording) -> None:
    """A line now and then while the user watches the program run."""
    global _progress
    recorder = recording.recorder
    now = time.monotonic()
    if recorder.last is None or now - _progress < PROGRESS_S or not _interactive():
        return
    _progress = now
    pause = text.milliseconds(recorder.last.pause_us / 1000)
    counted = text.plural(recording.snapshots, "snapshot")
    say(f"[uffd: {counted}, the last one paused the program for {pause}]")


_batch: Optional[bool] = None


def _interactive() -> bool:
    """Whether somebody sits before this gdb."""
    global _batch
    if _batch is None:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        _batch = any(word in (b"-batch", b"--batch", b"-batch-silent") for word in words)
    return not _batch and os.isatty(0)


def at(words: str, usage: str) -> None:
    """Take a snapshot at each hit of a location from now on."""
    parsed = parse_at(words, usage)
    recording = recordings.current()
    _step_in_place(recording)
    trigger = SnapshotBreakpoint(recording, words.strip(), parsed)
    recording.on_end.append(trigger.retire)


class Ticker:
    """Takes a snapshot every `interval_s` while the program runs.

    A thread of Python keeps the time; gdb's own thread, which alone may trace, takes the
    snapshot between two of its events.
    """

    def __init__(self, recording: Recording, interval_s: float) -> None:
        self.recording = recording
        self.interval_s = interval_s
        self._ended = threading.Event()
        self._posted = False
        ticks = self._ticks()
        next(ticks)
        self._next = functools.partial(next, ticks)
        interrupts.start(threading.Thread(target=self._run, name="uffd record every", daemon=True))

    def end(self, at_prompt: bool = True) -> None:
        """No more snapshots."""
        self._ended.set()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self.interval_s, time.monotonic())
            if self._ended.wait(due - time.monotonic()):
                return
            # Nothing may be posted when gdb is about to quit: gdb 13 crashes then.
            if not self._posted and _runs(self.recording.pid):
                self._posted = True
                gdb.post_event(self._next)

    def _ticks(self) -> Iterator[None]:
        """Goes on at each event: a Ctrl-C that came as gdb called it is raised inside of `try`,
        where a function would be left before its first line, and Ctrl-C be lost."""
        while True:
            try:
                yield
                with recordings.uninterrupted():
                    self._tick()
            except KeyboardInterrupt:
                self._posted = False
                recordings.interrupt_later()
            except Exception as error:  # else nobody would go on
                recordings.fail(UffdError(f"{type(error).__name__}: {error}"))

    def _tick(self) -> None:
        self._posted = False
        began = time.monotonic_ns()
        recording = self.recording
        if self._ended.is_set() or recordings.active() is not recording:
            return
        recordings.check()
        if recordings.active() is not recording or recording.full:
            return
        if recording.recorder.pending > 2:
            return  # the disk is slower than the clock
        where = self._where()
        if where is not None:
            _take(recording, where, began)

    def _where(self) -> Optional[Where]:
        thread = gdb.selected_thread()
        inferior = next((i for i in gdb.inferiors() if i.num == self.recording.number), None)
        if thread is None or inferior is None:
            return None
        if thread.inferior.num != inferior.num or not thread.is_running():
            threads = [t for t in inferior.threads() if t.is_running()]
            if not threads:
                return None  # it stands where the user looks at it
            thread = threads[-1]
        return Where(thread.ptid[1], ptrace.comm(thread.ptid[1]), "")


def _runs(pid: int) -> bool:
    return any(ptrace.state(pid, tid) not in ("t", "", "Z", "X") for tid in ptrace.threads(pid))


_tickers: List[Ticker] = []


def every(words: str, usage: str) -> None:
    """Take a snapshot every so often from now on."""
    seconds = parse_interval(words, usage)
    recording = recordings.current()
    if recording.local is None:
        raise UffdError(
            "gdb debugs this program through another one, which cannot be frozen from here: "
            "`uffd record at LOCATION` takes snapshots of it"
        )
    _step_in_place(recording)
    for ticker in _tickers:
        ticker.end()
    _tickers[:] = [Ticker(recording, seconds)]
    recording.on_end.append(_tickers[0].end)
