"""The recorder process as gdb's side sees it: started, told what to do, heard.  No gdb here."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from typing import Any, BinaryIO, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.client.session.launch import clean_environment, last_line, remedy
from gdb_uffd.client.show.text import signal_name
from gdb_uffd.dataclass import dataclass
from gdb_uffd.outputs import remove_directories, scratch_beside, trace_path
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.recorder.wire import PROTOCOL, Message, WireError, receive, send
from gdb_uffd.terminal import one_line

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 600.0
"""What was captured is still written when the recording ends, to a slow disk too."""


class RecorderFailed(UffdError):
    """The recording cannot go on; the text says why."""


@dataclass(frozen=True)
class Committed:
    """A snapshot that is in the trace."""

    number: int
    label: str
    pages_changed: int
    pages_stored: int
    pause_us: int


@dataclass(frozen=True)
class Source:
    """What to record.  `fds`: names (see recorder.wire) and descriptors, none for a target whose
    cores are imported."""

    pid: int
    fds: Sequence[Tuple[str, int]] = ()
    auxv: bytes = b""


class Recorder:
    """One recorder process and its trace."""

    def __init__(self, interpreter: str, path: str, source: Source, self_contained: bool) -> None:
        """Start it and create the trace.  UffdError when that fails, with nothing left behind."""
        self.path = path
        self.tracked = False  # whether the kernel tracks what is written
        self.why = ""  # why not
        self.captured = 0  # snapshots that were handed over to be written
        self.last: Optional[Committed] = None
        self.fresh: List[Committed] = []  # committed, and not asked for yet
        self.failure = ""
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `end`
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [interpreter, "-I", "-m", "gdb_uffd.recorder", "--fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    env=clean_environment(os.environ),
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C in the terminal is gdb's alone
                )
        except OSError as error:
            self._socket.close()
            self._stderr.close()
            reason = error.strerror or error
            raise UffdError(f"cannot run {interpreter}: {reason}; {remedy()}") from None
        try:
            self._open(path, source, self_contained)
        except BaseException:
            self.end(0.0)
            # Of one that was killed before the trace had its name.
            remove_directories(*scratch_beside(trace_path(path), "new"))
            raise

    def _open(self, path: str, source: Source, self_contained: bool) -> None:
        data: Dict[str, Any] = {
            "protocol": PROTOCOL,
            "path": path,
            "pid": source.pid,
            "self_contained": self_contained,
            "fds": [name for name, _ in source.fds],
        }
        self._send(Message("open", data, source.auxv, [fd for _, fd in source.fds]))
        answer = self._wait("opened", START_TIMEOUT_S)
        self.path = str(answer.data["path"])
        self.tracked, self.why = bool(answer.data["tracked"]), str(answer.data["why"])

    @property
    def pid(self) -> int:
        """The recorder's process."""
        return self._process.pid

    @property
    def pending(self) -> int:
        """Snapshots that were captured and are not in the trace yet."""
        return self.captured - (self.last.number + 1 if self.last is not None else 0)

    def _send(self, message: Message) -> None:
        try:
            send(self._socket, message)
        except OSError:
            raise self._died() from None

    def _died(self) -> RecorderFailed:
        if not self.failure:
            # The socket closes before the process is gone for good.
            try:
                status: Optional[int] = self._process.wait(5)
            except subprocess.TimeoutExpired:
                status = None
            # gdb waits for all children (linux-nat.c), and may have taken this one's status.
            how = f" ({signal_name(-status)})" if status is not None and status < 0 else ""
            words = last_line(self._stderr)
            self.failure = f"the recorder has died{how}" + (f": {words}" if words else "")
        return RecorderFailed(self.failure)

    def _receive(self, timeout_s: float) -> Optional[Message]:
        """The next message; None when none comes in that time.  RecorderFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            # In short steps, so that a Ctrl-C that gdb flagged gets its turn.
            left = deadline - time.monotonic()
            if select.select([self._socket], [], [], min(max(left, 0.0), 0.2))[0]:
                break
            if left <= 0:
                return None
        try:
            message = receive(self._socket)
        except WireError:
            message = None
        if message is None:
            raise self._died()
        if message.verb == "failed":
            self.failure = one_line(str(message.data.get("error")))
            raise RecorderFailed(self.failure)
        if message.verb == "committed":
            self.last = Committed(**message.data)
            self.fresh.append(self.last)
        return message

    def _wait(self, verb: str, timeout_s: float) -> Message:
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._receive(deadline - time.monotonic())
            if message is None:
                raise RecorderFailed(f"the recorder did not answer within {timeout_s:.0f} s")
            if message.verb == verb:
                return message

    def capture(self) -> None:
        """The process stands still: copy what changed.  `threads` is to follow at once."""
        self._send(Message("capture", {}))

    def threads(self, info: Dict[str, Any], threads: bytes) -> None:
        """The registers of all threads (recorder.wire.pack_thread), the selected one first."""
        self._send(Message("threads", {"info": info}, threads))

    def wait_captured(self) -> List[int]:
        """Wait until the process may run again; pages of code in which breakpoints may be."""
        return [int(page) for page in self._wait("captured", END_TIMEOUT_S).data["code"]]

    def commit(self, info: Dict[str, Any], code: Dict[int, bytes]) -> None:
        """It runs again: write the snapshot.  `code`: pages as they are below breakpoints."""
        data = {"info": info, "code": list(code)}
        self._send(Message("commit", data, b"".join(code.values())))
        self.captured += 1

    def import_core(self, core: str, info: Dict[str, Any]) -> None:
        """Make a core file the next snapshot; it must stay until that is committed."""
        self._send(Message("import", {"core": core, "info": info}))
        self.captured += 1

    def hear(self) -> None:
        """Take in what was committed meanwhile; never waits.  RecorderFailed."""
        while self._receive(0.0) is not None:
            pass

    def settle(self, pending: int = 0) -> None:
        """Wait until at most `pending` captured snapshots are not in the trace yet."""
        self.hear()
        while self.pending > pending:
            if self._receive(END_TIMEOUT_S) is None:
                raise RecorderFailed("the recorder does not write any more")

    def close(self, leaving: bool = False) -> None:
        """Finish the trace and end the process.  RecorderFailed when something is not in it.

        `leaving`: gdb may be about to let the program go; the process stays for a while, to see
        that no SIGSTOP by which it was frozen stops it then."""
        try:
            self._send(Message("close", {"leaving": leaving}))
            self._wait("closed", END_TIMEOUT_S)
        finally:
            if leaving:
                self._socket.close()
                self._stderr.close()
            else:
                self.end()

    def end(self, patience_s: float = 10.0) -> None:
        """Close the connection and see the process end: that finishes the trace.  Idempotent."""
        self._socket.close()
        for wait_s, force in ((patience_s, self._process.terminate), (2.0, self._process.kill)):
            try:
                self._process.wait(wait_s)
                break
            except subprocess.TimeoutExpired:
                force()
        self._process.wait()
        self._stderr.close()
