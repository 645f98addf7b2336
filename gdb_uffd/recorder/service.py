"""The recorder's side of the conversation: one connection, one trace."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from dataclasses import fields
from typing import Any, Dict, List, Optional, Set, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, SnapshotInfo, UffdError
from gdb_uffd.recorder import maps, threads
from gdb_uffd.recorder.capture import Chunk, Pool, ScanResult, TargetProcess
from gdb_uffd.recorder.imported import write_core
from gdb_uffd.recorder.process import Process
from gdb_uffd.recorder.ranges import Range, intersect, normal, subtract
from gdb_uffd.recorder.sink import Begin, Commit, Pages, RecordSink, Whole
from gdb_uffd.recorder.wire import PROTOCOL, Message, WireError, receive, send
from gdb_uffd.trace.store.write import TraceWriter

_INFO_FIELDS = {f.name: f.type for f in fields(SnapshotInfo)}

_LETS_GO_S = 2.0
"""In which a gdb that was killed lets go of the program."""
_ENDS_S = 30.0
"""In which a gdb ends that said so: some seconds are usual in the middle of something."""

_DELIVERED_S = 1.0


class Service:
    """Serves one tracer until it closes, or is gone; then the trace is finished."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._pool = Pool()
        self._sink: Optional[RecordSink] = None
        self._target: Optional[TargetProcess] = None
        self._process: Optional[Process] = None
        self._auxv = b""
        self._areas: List[Range] = []  # what the trace has recorded pages of
        self._fds: List[int] = []
        self._asked = False  # to close
        self._patience_s = _LETS_GO_S  # how long it looks after the program when gdb has gone

    def run(self) -> None:
        """Until the other side closes."""
        try:
            while True:
                message = receive(self._connection)
                if message is None:
                    break
                if message.verb == "close":
                    self._told(message)
                    break
                self._handle(message)
        except WireError:
            pass  # what was captured whole is written
        finally:
            self._close()
        if self._asked:  # gdb waits for it, and holds the program meanwhile
            self._send("closed", {"snapshots": self._snapshots()})
        if self._patience_s and self._target is not None:
            continue_orphan(self._target.pid, self._patience_s)

    def _told(self, close: Message) -> None:
        """gdb's side ends the recording."""
        self._asked = True
        self._patience_s = _ENDS_S if close.data.get("leaving") else 0.0

    def _snapshots(self) -> int:
        return self._sink.writer.snapshots if self._sink is not None else 0

    def _close(self) -> None:
        # The userfaultfd goes first: from then on the program pays for nothing.
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self._sink is not None:
            self._sink.close()

    def _send(self, verb: str, data: Dict[str, Any]) -> None:
        with self._sending:
            try:
                send(self._connection, Message(verb, data))
            except OSError:
                pass  # gone; the next receive says so

    def _handle(self, message: Message) -> None:
        try:
            if message.verb == "open":
                self._open(message)
            elif self._sink is None:
                raise UffdError("nothing is open")
            elif self._sink.failure:
                self._send("failed", {"error": self._sink.failure})
            elif message.verb == "capture" and self._target is not None:
                self._capture(self._target, self._sink)
            elif message.verb == "import":
                self._import(message, self._sink)
            else:
                raise UffdError(f"unexpected message {message.verb}")
        except (UffdError, ValueError, KeyError, TypeError, OSError) as error:
            self._send("failed", {"error": str(error), "gone": type(error).__name__ == "Gone"})

    def _open(self, message: Message) -> None:
        data = message.data
        named = dict(zip(data["fds"], message.fds))
        self._fds = list(message.fds)
        if data["protocol"] != PROTOCOL:
            raise UffdError("the recorder is of another version than gdb's side: restart gdb")
        target = None
        if "mem" in named:
            target = TargetProcess(
                int(data["pid"]), named["mem"], named["pagemap"], named["maps"],
                named.get("uffd", -1),
            )  # fmt: skip
            self._process = Process(int(data["pid"]))
            target.layout()  # examines the files, which takes a while the first time
        writer = TraceWriter.create(data["path"], self_contained=bool(data["self_contained"]))
        self._auxv, self._target = message.payload, target
        self._sink = RecordSink(
            writer,
            self._pool,
            lambda info: self._send("committed", self._facts(info)),
            lambda text: self._send("failed", {"error": text}),
        )
        tracked = target is not None and target.tracked
        why = target.why_full if target is not None else ""
        self._send("opened", {"path": writer.path, "tracked": tracked, "why": why})

    def _facts(self, info: SnapshotInfo) -> Dict[str, Any]:
        stored = self._sink.writer.pages_stored if self._sink is not None else 0
        return {
            "number": info.number,
            "label": info.label,
            "pages_changed": info.pages_changed,
            "pages_stored": stored,
            "pause_us": info.pause_us,
        }

    def _capture(self, target: TargetProcess, sink: RecordSink) -> None:
        """From the moment the process stands still until gdb says that it runs again."""
        target.scan()
        seen = self._process.look() if self._process is not None else None
        traps: Dict[int, bytes] = {}
        taken: List[Tuple[Chunk, Set[int]]] = []
        begun = False
        while target.more():
            if not begun and not self._pool.ready():  # more than fits: it must go out meanwhile
                self._begin(target, sink)
                begun = True
            if begun:
                self._write(sink, taken)
            chunk = self._pool.get()
            if not target.fill(chunk):
                self._pool.give_back(chunk)
                break
            fresh = set(target.traps()).difference(traps)
            for page in fresh:
                traps[page] = chunk.page(page)
            taken.append((chunk, fresh))
        target.check_alive()
        target.finish()
        self._send("captured", {"code": sorted(traps)})
        if not begun:
            self._begin(target, sink)
        self._write(sink, taken)
        message = self._expect("commit")
        for index, page in enumerate(message.data["code"]):
            data = message.payload[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
            if page in traps and len(data) == PAGE_SIZE:
                traps[page] = data
        told = self._process.told(seen) if self._process is not None and seen else None
        sink.put(Commit(_info(message.data["info"]), traps, told))

    @staticmethod
    def _write(sink: RecordSink, taken: List[Tuple[Chunk, Set[int]]]) -> None:
        for chunk, held in taken:
            sink.put(Pages(chunk, held))
        taken.clear()

    def _expect(self, verb: str) -> Message:
        message = receive(self._connection)
        if message is not None and message.verb == "close":  # in the middle of a snapshot
            self._told(message)
        if message is None or message.verb != verb:
            raise WireError(f"no {verb}")
        return message

    def _begin(self, target: TargetProcess, sink: RecordSink) -> None:
        message = self._expect("threads")
        states = threads.states(message.payload)
        if not states:
            raise UffdError("a snapshot without threads")
        target.finish()
        changes = target.changes()
        layout = changes.layout
        begin = Begin(
            _info(message.data["info"]), states, self._auxv, layout.mappings, layout.files
        )
        self._plan(changes, begin)
        sink.put(begin)

    def _plan(self, changes: ScanResult, begin: Begin) -> None:
        """Which ranges the trace records from now on, and which of them begin as zeros."""
        lines = list(zip(changes.layout.lines, changes.layout.hows, changes.states))
        every = [(x.start, x.end) for x, how, _ in lines if how not in (maps.FILE, maps.SHARED)]
        wanted = normal([*every, *changes.runs])
        fresh = normal((x.start, x.end) for x, _, state in lines if state == maps.FRESH)
        begin.forget = subtract(self._areas, wanted)
        begin.areas = normal([*subtract(wanted, self._areas), *intersect(wanted, fresh)])
        zero_backed = normal((x.start, x.end) for x, how, _ in lines if how == maps.ANONYMOUS)
        begin.zeros = subtract(intersect(changes.gone, zero_backed), begin.areas)
        self._areas = wanted

    def _import(self, message: Message, sink: RecordSink) -> None:
        core, info = str(message.data["core"]), _info(message.data["info"])
        sink.put(Whole(lambda writer: write_core(writer, core, info)))


def _info(data: Dict[str, Any]) -> SnapshotInfo:
    """A SnapshotInfo from its JSON; unknown fields are an error, missing ones stay as they are."""
    for name, value in data.items():
        wanted = str if _INFO_FIELDS[name] == "str" else int
        if type(value) is not wanted:
            raise ValueError(f"{name} of a snapshot is {value!r}")
    return SnapshotInfo(**{"number": 0, **data})


def continue_orphan(pid: int, patience_s: float) -> None:
    """gdb is gone, or about to go.  A SIGSTOP by which it froze a thread of the program for a
    snapshot may still be under way: without a tracer it stops the program for good, so the program
    is told to go on (SIGCONT takes back those that are pending, too: signal(7))."""
    deadline = time.monotonic() + patience_s
    traced = True
    while time.monotonic() < deadline:
        states = _states(pid)
        if not states:
            return
        # gdb lets one thread go after the other.
        if all(b"\nTracerPid:\t0\n" in state for state in states):
            if traced:  # a signal that was held back for the tracer is delivered in a moment
                traced, deadline = False, time.monotonic() + _DELIVERED_S
            if any(b"\nState:\tT" in state or _stop_pends(state) for state in states):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def _stop_pends(status: bytes) -> bool:
    pending = re.findall(rb"^S[hi][dg]Pnd:\t([0-9a-f]+)$", status, re.M)
    return any(int(mask, 16) >> (signal.SIGSTOP - 1) & 1 for mask in pending)


def _states(pid: int) -> List[bytes]:
    """/proc/PID/task/TID/status of all threads that there are; proc_pid_status(5)."""
    found = []
    with contextlib.suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/status", "rb") as file:
                found.append(file.read())
    return found


def serve(descriptor: int) -> None:
    """Serve the socket with that number."""
    # A capture must not wait for 5 ms (the default) until the thread that writes gives way.
    sys.setswitchinterval(0.0002)
    with socket.socket(fileno=descriptor) as connection:
        Service(connection).run()
