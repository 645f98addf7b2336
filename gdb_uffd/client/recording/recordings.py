"""The recording of a live process: begun, asked for snapshots, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.recording.freeze import NotStill, watch_breakpoints
from gdb_uffd.client.recording.local import LocalProcess, is_traced, was_killed
from gdb_uffd.client.recording.record_options import HOW
from gdb_uffd.client.recording.recorder_client import Committed, Recorder, RecorderFailed, Source
from gdb_uffd.client.recording.snapshot_names import Where, ended, function_at, here, trapped
from gdb_uffd.client.recording.stub_cores import RemoteProcess
from gdb_uffd.client.session import interrupts, launch, sessions, settings
from gdb_uffd.client.session.asking import FAILURES, selected_arch
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.show import text
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

MAX_PENDING = 8
"""Snapshots that may wait to be written when another one is taken; the recorder bounds bytes."""

MAX_LABEL = 200
"""Characters; a label is a name, and is shown on one line."""

NOTHING = "nothing is recorded: `uffd record start FILE` on a stopped program does that"


class Recording:
    """One trace being recorded of the process of one inferior."""

    def __init__(self, path: str, self_contained: bool) -> None:
        """Prepare the process and start the recorder.  UffdError, with nothing left behind."""
        inferior = gdb.selected_inferior()
        self.number, self.pid = inferior.num, inferior.pid
        self.on_end: List[Callable[[bool], None]] = []  # called with: at a prompt, or in an event
        self.signalled: Dict[int, int] = {}  # TID -> signal that gdb stopped it with
        self.limit = 0  # snapshots that may be taken unasked; 0: any number
        self.local: Optional[LocalProcess] = None
        self.remote: Optional[RemoteProcess] = None
        self.why_full = ""
        interpreter = launch.find_interpreter(settings.python(), os.environ)
        source, uffd = Source(self.pid), -1
        if is_traced(self.pid):
            self.local = LocalProcess(self.pid)
            source, self.why_full = self.local.source()
            uffd = dict(source.fds).get("uffd", -1)
        else:
            self.remote = RemoteProcess()
        try:
            self.recorder = Recorder(interpreter, path, source, self_contained)
        except BaseException:
            self._let_go()
            raise
        finally:
            if uffd >= 0:
                os.close(uffd)
        self.why_full = self.why_full or self.recorder.why

    @property
    def snapshots(self) -> int:
        """How many are in the trace."""
        last = self.recorder.last
        return last.number + 1 if last is not None else 0

    @property
    def full(self) -> bool:
        """Whether no more snapshots are to be taken unasked."""
        return 0 < self.limit <= self.recorder.captured

    def _let_go(self) -> None:
        if self.local is not None:
            self.local.close()
        if self.remote is not None:
            self.remote.close()

    def gone(self) -> str:
        """Why the process can be recorded no more, "" while it can."""
        inferior = next((i for i in gdb.inferiors() if i.num == self.number), None)
        if inferior is None or not inferior.pid:
            return "gdb has let the program go"
        if inferior.pid != self.pid:
            return f"gdb debugs process {inferior.pid} now"
        if self.local is not None and not self.local.alive():
            return "the program ended, or became another one (exec)"
        return ""

    def take(self, label: str, where: Where, began: int) -> None:
        """Take a snapshot, to be written while the program runs on; `began` as in LocalProcess.

        RecorderFailed; another UffdError (NotStill) when only this one cannot be taken.
        """
        selected = gdb.selected_inferior().num
        if selected != self.number:  # memory is read, and threads are found, through gdb
            raise NotStill(
                f"inferior {selected} is selected, the recorded program is inferior {self.number}: "
                f"`inferior {self.number}` selects it"
            )
        self.recorder.settle(MAX_PENDING)
        info: Dict[str, Any] = {
            "label": label,
            "time_ns": time.time_ns(),
            "monotonic_ns": began,
            "pid": self.pid,
            "tid": where.tid,
            "thread_name": where.thread_name,
            "function": where.function,
            "signal": self.signalled.get(where.tid, 0),
        }
        with uninterrupted():
            if self.remote is not None:
                self.remote.capture(self.recorder, info, began)
            elif self.local is not None:
                self._capture(self.local, info, began)

    def _capture(self, local: LocalProcess, info: Dict[str, Any], began: int) -> None:
        try:
            local.capture(self.recorder, info, began, function_at)
        except (NotStill, RecorderFailed):
            raise
        except (UffdError, OSError, gdb.error) as error:
            # Half a snapshot: what was written since the last one is no longer known.
            raise RecorderFailed(one_line(str(error))) from None

    def end(self, reason: str, at_prompt: bool) -> str:
        """Finish the trace; a line about it."""
        why = reason
        # First: a recorder that was told to close does not see to SIGSTOPs of ours any more.
        self._let_go()
        try:
            # In the middle of an event gdb may be about to end, and may not know all that we did.
            self.recorder.close(leaving=not at_prompt)
        except RecorderFailed as error:
            why = str(error)
        for action in self.on_end:
            with contextlib.suppress(*FAILURES):
                action(at_prompt)
        stored = text.plural(self.snapshots, "snapshot")
        path = os.path.relpath(self.recorder.path)
        shown = path if len(path) < len(self.recorder.path) else self.recorder.path
        return f"recording ended{': ' + why if why else ''}; {stored} in {one_line(shown)}"


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until a snapshot is whole.

    gdb would raise KeyboardInterrupt in our Python (gdb manual, "Basic Python"), and what it does
    itself at a Ctrl-C, stop the program, would not happen: so it gets it when Python is done.
    Likewise it would forget in the middle of our Python that it was told to end (SIGTERM).
    May be nested.
    """
    with interrupts.blocked({signal.SIGINT, signal.SIGTERM, signal.SIGHUP}):
        try:
            yield
        finally:
            # Taken, not let through: gdb would get it twice, and spoil the next command.
            if signal.SIGINT in signal.sigpending():
                signal.sigwait({signal.SIGINT})
                interrupt_later()


def interrupt_later() -> None:
    """Ctrl-C once more, when gdb is back from Python."""
    timer = threading.Timer(0.02, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.daemon = True
    interrupts.start(timer)


_recording: Optional[Recording] = None
_snapshots = 0  # of the recording that ended last


def _say(line: str) -> None:
    say(line)


_tell: Callable[[str], None] = _say


def listen(function: Callable[[str], None]) -> None:
    """Give the line about a recording's end to `function` instead of the user."""
    global _tell
    _tell = function


def last_count() -> int:
    """Snapshots in the trace that was recorded last."""
    return _snapshots


def active() -> Optional[Recording]:
    """The recording, if there is one."""
    return _recording


def current() -> Recording:
    """The recording; UffdError when there is none or it has just ended."""
    check()
    if _recording is None:
        raise UffdError(NOTHING)
    return _recording


def start(path: str, self_contained: bool) -> None:
    """Begin to record the selected inferior."""
    global _recording
    check()
    if _recording is not None:
        raise UffdError(
            f"{_recording.recorder.path} is being recorded: `uffd record stop` ends that"
        )
    inferior, thread = gdb.selected_inferior(), gdb.selected_thread()
    if sessions.find(inferior.num) is not None:
        raise UffdError("this inferior shows what was recorded; a live process can be recorded")
    if not inferior.pid or thread is None:
        raise UffdError("the program is not being run: `start` or `attach` it first")
    if was_killed(inferior.pid):
        raise UffdError("the program was killed: `kill` lets gdb know of it, `run` starts it again")
    if not selected_arch().records:
        raise UffdError("live processes are recorded on x86-64 only; `gcore` writes a core")
    if thread.is_running():
        raise UffdError("the program runs: stop it first (Ctrl-C, or `interrupt`)")
    recording = _recording = Recording(path, self_contained)
    _connect(True)
    how = "pages that are written are tracked"
    if recording.remote is not None:
        how = "gdb writes a core for each snapshot: this is no process that gdb itself traces"
    elif not recording.recorder.tracked:
        how = f"each snapshot reads all memory ({recording.why_full})"
    say(f"recording to {one_line(recording.recorder.path)}; {how}")


def stop() -> None:
    """End the recording, when everything is written."""
    current()
    _tell(_end("", at_prompt=True))


def snapshot(label: str) -> None:
    """Take one of the stopped program, and say so when it is in the trace."""
    began = time.monotonic_ns()
    recording = current()
    thread = gdb.selected_thread()
    if thread is None:
        raise UffdError("no thread is selected")
    if len(label) > MAX_LABEL:
        raise UffdError(f"a label of {len(label)} characters; it may have up to {MAX_LABEL}")
    try:
        recording.take(label, here(thread), began)
        recording.recorder.settle()
    except RecorderFailed as error:
        raise UffdError(_end(str(error))) from None
    finally:
        check_failure()
    last = recording.recorder.last
    if last is not None:
        say(line(last))


def signal_snapshot(name: str, always: bool) -> None:
    """Take one because the program was stopped by a signal; `always`: beyond the limit too."""
    began = time.monotonic_ns()
    thread = gdb.selected_thread()
    if _recording is None or thread is None or (_recording.full and not always):
        return
    if thread.inferior.num != _recording.number:
        return
    try:
        _recording.take(name, here(thread), began)
    except RecorderFailed as error:
        fail(error)
    except UffdError as error:
        _tell(f"no snapshot at {name}: {error}")


def line(done: Committed) -> str:
    """What is said about a snapshot that is in the trace."""
    label = f' "{one_line(done.label)}"' if done.label else ""
    changed = text.plural(done.pages_changed, "page")
    pause = text.milliseconds(done.pause_us / 1000)
    return f"snapshot {done.number}{label}: {changed} changed, pause {pause}"


def check() -> None:
    """See whether what is recorded is still there; else end the recording, with a line."""
    if _recording is not None:
        reason = _recording.gone()
        if reason:
            _tell(_end(reason))
        else:
            check_failure()


def check_failure() -> None:
    """Take in what the recorder has to say; if it cannot go on, end the recording, with a line."""
    if _recording is not None:
        try:
            _recording.recorder.hear()
        except RecorderFailed as error:
            _tell(_end(str(error)))


def settled() -> Optional[Recording]:
    """The recording, when all snapshots taken so far are in the trace; None without one."""
    check()
    if _recording is not None:
        try:
            with uninterrupted():
                _recording.recorder.settle()
        except RecorderFailed as error:
            _tell(_end(str(error)))
    return _recording


def fail(error: UffdError) -> None:
    """A snapshot that was to be taken unasked could not be: end the recording, with a line."""
    if _recording is not None:
        _tell(_end(str(error)))


def _end(reason: str, at_prompt: bool = False) -> str:
    global _recording, _snapshots
    recording, _recording = _recording, None
    _connect(False)
    if recording is None:
        return ""
    line = recording.end(reason, at_prompt)
    if not recording.snapshots and _tell is _say:
        line += f": {HOW}"
    _snapshots = recording.snapshots
    return line


def _on_stop(event: gdb.StopEvent) -> None:
    if _recording is None:
        return
    thread = gdb.selected_thread()
    if thread is not None and thread.inferior.num == _recording.number:
        number = 0
        if isinstance(event, gdb.SignalEvent):
            with contextlib.suppress(KeyError):
                number = signal.Signals[event.stop_signal].value
        elif not isinstance(event, gdb.BreakpointEvent) and trapped():
            number = signal.SIGTRAP
        _recording.signalled = {thread.ptid[1]: number}
    check()


def _on_exit(event: gdb.ExitedEvent) -> None:
    if _recording is None or event.inferior.num != _recording.number:
        return
    _tell(_end(ended(event)))


def _before_prompt(_event: object = None) -> None:
    check()
    if _recording is not None and _recording.local is not None:
        thread = gdb.selected_thread()
        _recording.local.freezer.user_thread = thread.ptid[1] if thread is not None else 0
        _recording.local.freezer.settle()


def _on_new_objfile(_event: object = None) -> None:
    if _recording is not None and _recording.local is not None and not _recording.local.alive():
        _tell(_end("the program became another one (exec)"))


def _on_connection_removed(_event: object = None) -> None:
    if _recording is not None:
        reason = _recording.gone()
        if reason:
            _tell(_end(reason))


def _exiting(_event: object = None) -> None:
    if _recording is not None:
        _end("")


def _connect(connect: bool) -> None:
    """Follow gdb's events while something is recorded, and only then."""
    watch_breakpoints(connect)
    events = gdb.events
    pairs: Tuple[Tuple[Any, Any], ...] = (
        (events.stop, _on_stop),
        (events.exited, _on_exit),
        (events.before_prompt, _before_prompt),
        (events.connection_removed, _on_connection_removed),
        (events.new_objfile, _on_new_objfile),
        (events.gdb_exiting, _exiting),
    )
    for registry, function in pairs:
        if connect:
            registry.connect(function)
        else:
            registry.disconnect(function)
