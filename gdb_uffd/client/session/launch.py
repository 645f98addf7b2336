"""Start the server that holds the core, and see it end.  No gdb here.

Everything follows docs/protocol.md, "Start-up".
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import BinaryIO, Dict, List, Mapping, Optional, Sequence

import gdb_uffd
from gdb_uffd import dataclass
from gdb_uffd.client.session.wire import parse_progress, parse_ready
from gdb_uffd.outputs import SCRATCH, UNLOCKED
from gdb_uffd.protocol import codec
from gdb_uffd.protocol.messages import Progress, Ready, TellProgress
from gdb_uffd.protocol.model import CallReport, UffdError
from gdb_uffd.terminal import one_line

START_TIMEOUT_S = 60.0
"""A 4 GiB core opens in well under a second; a cold network disk may take long.  Ctrl-C works."""

MAX_LINE_BYTES = 1 << 20
"""Cap on the ready line: warnings name at most a few hundred libraries."""

MAX_SOCKET_PATH_BYTES = 107
"""sizeof(sun_path) - 1, unix(7)."""

PACKAGE_DIR = os.path.dirname(os.path.abspath(str(gdb_uffd.__file__)))
"""The directory gdb_uffd/ that this side was loaded from."""


def find_interpreter(setting: str, environ: Mapping[str, str], package: str = PACKAGE_DIR) -> str:
    """Path of the Python that runs the server.

    In this order: `set uffd python`, $GDB_UFFD_PYTHON, the checkout's .venv, the interpreter
    that installed the package.  sys.executable is no help: inside gdb it may name anything.
    UffdError tells what to do when there is none.
    """
    for value, source in (
        (setting, "set uffd python"),
        (environ.get("GDB_UFFD_PYTHON", ""), "GDB_UFFD_PYTHON"),
    ):
        if value:
            path = os.path.expanduser(value)
            found = shutil.which(path) if os.sep not in path else path
            if not found or not os.access(found, os.X_OK) or os.path.isdir(found):
                raise UffdError(
                    f"{source} names {value}, which is not a program: give the path of a Python "
                    "that has gdb_uffd installed"
                )
            return os.path.abspath(found)
    for path in _candidates(package):
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise UffdError(f"no Python for the server: {remedy(package)}")


def _candidates(package: str) -> List[str]:
    root = os.path.dirname(package)
    paths = [os.path.join(root, ".venv", "bin", "python")]
    # PREFIX/lib/pythonX.Y/site-packages/gdb_uffd, the layout of sysconfig's posix_prefix,
    # posix_user and venv schemes (Python library, sysconfig, "Installation paths").
    match = re.match(r"(.*)/lib(?:64)?/python(3(?:\.\d+)?)/(?:site|dist)-packages$", root)
    if match:
        prefix, version = match.groups()
        names = [f"python{version}", "python3"]
        paths += [os.path.join(prefix, "bin", name) for name in names]
        # `pip install --user` has no interpreter in its prefix; the system's one installed it.
        paths += [path for path in map(shutil.which, names[:1]) if path]
    return paths


def remedy(package: str = PACKAGE_DIR) -> str:
    """What to do when the server's Python is missing or lacks the native module."""
    root = os.path.dirname(package)
    if os.path.exists(os.path.join(root, "Makefile")):
        return f"run `make` in {root}, or set GDB_UFFD_PYTHON"
    return "run `pip install gdb_uffd`, or set GDB_UFFD_PYTHON to the Python that has it"


def clean_environment(environ: Mapping[str, str]) -> Dict[str, str]:
    """`environ` without PYTHON*: a gdb from PyPI sets PYTHONHOME for itself alone."""
    kept = {
        k: v for k, v in environ.items() if not k.startswith("PYTHON") and k != "GDB_UFFD_PYTHON"
    }
    return kept


@dataclass.dataclass
class Server:
    """A started server: its process, its private directory, what it said."""

    process: "subprocess.Popen[bytes]"
    directory: str
    stderr: BinaryIO
    ready: Ready
    far = False  # it runs here

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def last_words(self) -> str:
        """The last line the server wrote to stderr, or "" (why it died, when it died)."""
        return last_line(self.stderr)

    def connected(self) -> None:
        """Remove the directory: a connected socket needs no name, and so nothing stays
        behind whatever becomes of gdb."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def ended(self) -> Optional[int]:
        """Its exit status (negative: a signal), or None while it runs."""
        return self.process.poll()

    def is_gone(self) -> bool:
        """Whether it has ended; its sockets are closed a moment before it has."""
        _await_end(self.process, 1.0)
        return self.ended() is not None

    def stop(self, patience_s: float = 3.0) -> int:
        """Wait for the end that the closed socket brings, force it if need be, and tidy up.

        Returns the exit status as subprocess has it.
        """
        status = _finish(self.process, patience_s)
        self.connected()
        self.stderr.close()
        return status


def start(
    interpreter: str,
    core: str,
    executable: str = "",
    options: Sequence[str] = (),
    tell: Optional[TellProgress] = None,
) -> Server:
    """Start a server for `core` and wait until it listens.  `options`: further ones of its own.
    `tell` is called with each progress while it fetches files, and with None at their end;
    Ctrl-C then ends the downloads, a second one the start.

    UffdError with the server's own line, or with what kept it from starting.
    """
    directory = private_directory()
    socket = os.path.join(directory, "rsp")
    command = [interpreter, "-I", "-m", "gdb_uffd.server", "--socket", socket, "--core", core]
    if executable:
        command += ["--executable", executable]
    command += options
    process: "Optional[subprocess.Popen[bytes]]" = None
    stderr: Optional[BinaryIO] = None
    try:
        # A file, not a pipe: nobody would empty a pipe, and a full one would stop the server.
        stderr = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # Server's
        # A session of its own: Ctrl-C in the terminal is gdb's alone.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=clean_environment(os.environ),
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
        # While there is nothing else to do: the first call needs these.
        while dataclass.complete_one():
            pass
        codec.prepare(CallReport)
        line = _read_ready(process, START_TIMEOUT_S, tell or (lambda _now: None))
        if not line:
            _finish(process, 1.0)
            raise UffdError(_why_silent(interpreter, process.returncode, last_line(stderr)))
        return Server(process, directory, stderr, parse_ready(line))
    except BaseException as error:
        # KeyboardInterrupt included: whatever stops us, nothing of ours stays behind.
        if process is not None:
            _finish(process, 0.0)
        if stderr is not None:
            stderr.close()
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise UffdError(
                f"cannot run {interpreter}: {error.strerror or error}; {remedy()}"
            ) from None
        raise


def private_directory() -> str:
    """A new directory, mode 0700, short enough for a unix socket's name.  Whoever is killed before
    anything is in it leaves it to `outputs.remove_directories`."""
    places: List[Optional[str]] = [os.environ.get("XDG_RUNTIME_DIR"), None, "/tmp"]
    for place in places:
        if place is not None and not os.access(place, os.W_OK | os.X_OK):
            continue
        try:
            path = tempfile.mkdtemp(prefix=SCRATCH + UNLOCKED, dir=place)
        except OSError:
            continue
        if len(os.fsencode(path)) + len("/rsp") <= MAX_SOCKET_PATH_BYTES:
            return path
        os.rmdir(path)
    raise UffdError("no place for a private directory: set TMPDIR to a writable directory")


def _read_ready(process: "subprocess.Popen[bytes]", timeout_s: float, tell: TellProgress) -> str:
    """The line that ends the server's start, "" when it ended without one.  Each line of progress
    gives it the whole time anew."""
    data, interrupted = bytearray(), False
    now: Optional[Progress] = None
    while True:
        try:
            if not _read_line(process, timeout_s, data):
                return ""
        except KeyboardInterrupt:
            if now is None or interrupted:
                raise
            interrupted = True
            process.send_signal(signal.SIGINT)
            continue
        line = bytes(data[: data.index(b"\n")])
        del data[: len(line) + 1]
        now = parse_progress(line)
        tell(now)
        if now is None:
            return line.decode("utf-8", "replace")


def _read_line(process: "subprocess.Popen[bytes]", timeout_s: float, data: bytearray) -> bool:
    """Append to `data` what follows of the server's stdout until it holds a line; False when it
    ended without one.

    Polls in short steps so that a KeyboardInterrupt that gdb flagged gets its turn.
    """
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = time.monotonic() + timeout_s
    while b"\n" not in data:
        left = deadline - time.monotonic()
        if left <= 0 or len(data) > MAX_LINE_BYTES:
            raise UffdError(
                f"the server did not answer within {timeout_s:.0f} s; "
                "is the core on a slow disk? Try again, or copy it to a local one"
            )
        if select.select([fd], [], [], min(left, 0.2))[0]:
            chunk = os.read(fd, 65536)
            if not chunk:
                return False
            data += chunk
    return True


def _finish(process: "subprocess.Popen[bytes]", patience_s: float) -> int:
    """Close the pipes, wait, then SIGTERM, then SIGKILL; always reaps."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # a reader that is gone; nothing was buffered
    for wait_s, end in ((patience_s, process.terminate), (2.0, process.kill)):
        try:
            _await_end(process, wait_s)
            return process.wait(0.0)
        except subprocess.TimeoutExpired:
            end()
    return process.wait()


def _await_end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Until it has ended, or so long.  Popen.wait looks once in 50 ms only."""
    if process.returncode is not None or seconds <= 0:
        return
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(pidfd)


def _why_silent(interpreter: str, status: Optional[int], said: str) -> str:
    """One line for a server that ended before it said anything."""
    if "No module named" in said or "ImportError" in said or "ModuleNotFoundError" in said:
        return f"{interpreter} cannot run the server ({said}): {remedy()}"
    return f"the server of {interpreter} ended with status {status}: {said or 'no message'}"


def last_line(file: BinaryIO) -> str:
    """The last line with text in `file`, made printable, at most 300 characters."""
    try:
        # pread: the descriptor's offset is the server's too, and must stay where it is.
        length = os.fstat(file.fileno()).st_size
        tail = os.pread(file.fileno(), 4096, max(0, length - 4096))
    except (OSError, ValueError):
        return ""
    lines = [one_line(line) for line in tail.decode("utf-8", "replace").splitlines()]
    return next((line[:300] for line in reversed(lines) if line), "")
