"""Inside of the gdb that `gdb-uffd record` runs: the program is started and recorded."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from typing import Any, Callable, Dict, List, Optional

import gdb

from gdb_uffd.client.recording import ptrace, recordings, triggers
from gdb_uffd.client.recording.snapshot_names import end_of, ended, note_ending, trapped
from gdb_uffd.client.session.asking import quiet
from gdb_uffd.client.session.interrupts import start
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

FATAL = (
    "SIGSEGV SIGBUS SIGILL SIGFPE SIGABRT SIGSYS SIGTRAP SIGQUIT SIGXCPU SIGXFSZ "
    "SIGTERM SIGINT SIGHUP SIGPIPE"
).split()
"""Signals that end a program that does not expect them, and seldom come often: those of clocks and
SIGUSR1 would cost a stop each in programs that use them."""


RETRIES, RETRY_S = 20, 0.01
"""How often gdb is asked again for the end of a program that is ending, and in which intervals."""


LOST_S = 3.0
"""In which gdb tells of the end of a program that has ended.  When threads go while it looks at
them it can lose that end, and waits for ever."""


class _Watch:
    """Sees the program's end beside gdb (pidfd_open(2)), and calls `lost` when gdb misses it: in
    gdb's own thread, in the middle of `continue`."""

    def __init__(self, pid: int, lost: Callable[[], None]) -> None:
        """OSError."""
        self.pid, self.told = pid, threading.Event()
        self._lost, self._pidfd = lost, ptrace.pidfd_open(pid)
        start(threading.Thread(target=self._run, name="uffd watch", daemon=True))

    def _run(self) -> None:
        select.select([self._pidfd], [], [])
        os.close(self._pidfd)
        status = ptrace.wait_status(self.pid)  # nobody may have reaped it yet
        if status is not None:
            note_ending(status)
        if not self.told.wait(LOST_S):
            gdb.post_event(self._give_up)

    def _give_up(self) -> None:
        if not self.told.is_set():
            self._lost()


class _Headless:
    def __init__(self, plan: Dict[str, Any]) -> None:
        self.plan = plan
        self.report = int(plan["report_fd"])
        self.event: Optional[gdb.Event] = None
        self.exit: Dict[str, Any] = {}
        self.ended: List[str] = []  # what was said of the recording's end
        self.watch: Optional[_Watch] = None

    def tell(self, **facts: Any) -> None:
        """A line of JSON to the shell command."""
        os.write(self.report, (json.dumps(facts) + "\n").encode("ascii"))

    def run(self) -> None:
        gdb.events.stop.connect(self._on_stop)
        gdb.events.exited.connect(self._on_exit)
        quiet("handle all nostop noprint pass")
        quiet(f"handle SIGINT {' '.join(FATAL)} {' '.join(self.plan['signals'])} stop print pass")
        quiet("handle SIGTRAP nopass")  # gdb's own stops; one of the program's is given by hand
        try:
            quiet("starti")
        except gdb.error as error:
            raise UffdError(one_line(str(error))) from None
        if not self._pid():
            return  # it could not be started; it said so itself
        self.tell(pid=self._pid())
        with contextlib.suppress(OSError):  # before Linux 5.3
            self.watch = _Watch(self._pid(), self._lost)
        recordings.start(self.plan["path"], self.plan["self_contained"])
        recording = recordings.current()
        recording.limit = int(self.plan["max"])
        for words in self.plan["at"]:
            triggers.at(words, "")
        if self.plan["every"]:
            triggers.every(self.plan["every"], "")
        if recording.why_full:
            self.tell(note=f"each snapshot reads all memory: {recording.why_full}")
        resume = "continue"
        while self._pid():
            self._resume(resume)
            resume = "continue"
            if isinstance(self.event, gdb.SignalEvent) and self._pid():
                self._signalled(self.event.stop_signal)
            elif self.event is not None and trapped():
                self._signalled("SIGTRAP")
                resume = "signal SIGTRAP"

    def _resume(self, command: str) -> None:
        """Until the program stops or has ended.

        gdb gives up where a thread goes while it looks at it ("Couldn't get registers: No such
        process"), as all do once a signal kills one; the end itself comes with another wait.
        """
        for _ in range(RETRIES):
            try:
                quiet(command)
                return
            except gdb.error as error:
                pid = self._pid()
                if not pid:
                    return
                status = ptrace.wait_status(pid)
                if status is not None:
                    note_ending(status)
                elif "No such process" not in str(error):
                    raise
                self.event, command, reason = None, "continue", error
                time.sleep(RETRY_S)
        if status is None:
            raise UffdError(one_line(str(reason)))
        quiet("kill")  # gdb holds on to a thread that is no more: let it see an end

    def _pid(self) -> int:
        return int(gdb.selected_inferior().pid)

    def _signalled(self, name: str) -> None:
        wanted = name in self.plan["signals"]
        fatal = name in FATAL and self._deadly(name)
        if recordings.active() is not None and (wanted or fatal):
            recordings.signal_snapshot(name, always=fatal)

    def _deadly(self, name: str) -> bool:
        """Whether the program neither handles nor ignores that signal."""
        bit = signal.Signals[name].value - 1
        pid = self._pid()
        masks = [ptrace.status_field(pid, pid, field) or "0" for field in ("SigCgt", "SigIgn")]
        return not any(int(mask, 16) >> bit & 1 for mask in masks)

    def _on_stop(self, event: gdb.Event) -> None:
        self.event = event

    def _on_exit(self, event: Optional[gdb.ExitedEvent]) -> None:
        self.event = None
        if self.watch is not None:
            self.watch.told.set()
        for line in triggers.unhit():
            self.tell(note=f"--at {one_line(line)}")
        code, number = end_of(event)
        self.exit = {"signal": number} if code is None else {"exit": code}

    def _lost(self) -> None:
        """gdb has lost the program's end, and does not leave its `continue` (a failing command
        ends it in gdb 13, not in gdb 18): there is nothing left that it could do."""
        recordings.fail(UffdError(ended(None)))
        self._on_exit(None)
        self.finish()
        os._exit(0)

    def finish(self) -> None:
        """The last line to the shell command."""
        if self.watch is not None:
            self.watch.told.set()
        recording = recordings.active()
        if recording is not None:
            recordings.stop()
        self.tell(**self.exit, ended=self.ended, snapshots=recordings.last_count())


def main(descriptor: int) -> None:
    """`descriptor`: a file with the plan, as JSON."""
    plan = json.loads(os.pread(descriptor, 1 << 24, 0))
    headless = _Headless(plan)
    recordings.listen(headless.ended.append)
    try:
        headless.run()
    except (UffdError, gdb.error) as error:
        headless.tell(error=one_line(str(error)))
        if headless._pid():
            quiet("kill")
    finally:
        headless.finish()
