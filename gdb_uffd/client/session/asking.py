"""What is asked of gdb, and told to it: commands, settings, caches, the selection; and what gdb
raises."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from typing import Callable, Iterator, List, Optional, TypeVar

import gdb

from gdb_uffd.arch import RECORDED, Architecture, of_gdb
from gdb_uffd.protocol.model import UffdError

R = TypeVar("R")

FAILURES = (gdb.error, RuntimeError, OverflowError, ValueError)
"""What gdb raises where it cannot tell something: of memory and symbols; of objects that are not
valid any more; of numbers that do not fit; of names that are not of its charset (UnicodeDecodeError
is a ValueError)."""


def selected_arch() -> Architecture:
    """The selected inferior's processor."""
    return of_gdb(gdb.selected_inferior().architecture().name()) or RECORDED


def check_architecture(name: str) -> None:
    """UffdError when this gdb was built without that architecture: it would misread registers."""
    if name and not quiet(f"complete set architecture {name}").split():
        raise UffdError(
            f"this gdb does not know the architecture {name}; start one that does (gdb-multiarch)"
        )


def quiet(command: str) -> str:
    """Run a gdb command and return what it printed."""
    # The command ran also when gdb cannot decode what it printed.
    text = decoded(lambda: gdb.execute(command, from_tty=False, to_string=True))
    return text if not text.startswith(('~"', '&"')) else _from_mi(text)


_jobs: List[Callable[[], None]] = []


def captured(function: Callable[[], R]) -> R:
    """Call `function`, and drop what gdb prints meanwhile: its warnings about odd types, and
    tracebacks of the user's own printers.  gdb captures a command's output, not a function's."""
    results: List[R] = []
    errors: List[BaseException] = []

    def job() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    _jobs.append(job)
    quiet("python import gdb_uffd.client.session.asking; gdb_uffd.client.session.asking.run_job()")
    if errors:
        raise errors[0]
    return results[0]


def run_job() -> None:
    """Run what `captured` left."""
    _jobs.pop()()


def decoded(get: Callable[[], Optional[str]]) -> str:
    """A text of gdb's, also where its bytes are not of the host's charset: gdb decodes names of
    files and what a command printed by that."""
    try:
        return get() or ""
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-8", "replace")


_MI_RECORD = re.compile(r'^[~&@]"(.*)"$')
_MI_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_MI_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "e": "\x1b"}


def _from_mi(text: str) -> str:
    """Stream records of the machine interface (gdb manual, "GDB/MI Output Syntax") as the text
    they carry: gdb 18 captures those where it runs with `-i=mi`."""

    def escape(match: re.Match[str]) -> str:
        what = match[1]
        return chr(int(what, 8)) if len(what) == 3 else _MI_LETTERS.get(what, what)

    out = []
    for line in text.splitlines():
        record = _MI_RECORD.match(line)
        out.append(_MI_ESCAPE.sub(escape, record[1]) if record else line + "\n")
    return "".join(out)


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Nothing of what gdb itself writes reaches standard output for a while.

    "Thread 1 received signal SIGSEGV" goes past gdb.execute's to_string and past logging
    (gdb 13), so the descriptor itself is turned away.  Not where the machine interface
    runs on it: its front end must see every record.
    """
    if machine_interface():
        yield
        return
    gdb.flush()
    with open(os.devnull, "wb") as sink:
        saved = os.dup(1)
        os.dup2(sink.fileno(), 1)
        try:
            yield
        finally:
            gdb.flush()
            os.dup2(saved, 1)
            os.close(saved)


@functools.cache
def machine_interface() -> bool:
    """Whether gdb was started with another interpreter than its console."""
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return any(re.match(rb"--?i(nterpreter)?(=|$)", word) for word in words)


def tui_is_active() -> bool:
    """Whether gdb shows windows, which also take the keys that are typed."""
    with contextlib.suppress(*FAILURES):  # a gdb that was built without
        return "not active" not in quiet("info win")
    return False


@functools.cache
def version() -> int:
    """gdb's major version; a large number when it does not tell one."""
    match = re.search(r"\d+", gdb.VERSION)
    return int(match[0]) if match else 1000


def quote_file(path: str) -> str:
    """`path` as one argument of a gdb command (libiberty's buildargv rules)."""
    return "".join("\\" + c if c in " \t\n\\'\"" else c for c in path)


@contextlib.contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """`set NAME VALUE` for a while; a gdb that lacks the setting goes without."""
    try:
        old = gdb.parameter(name)
        gdb.execute(f"set {name} {value}", to_string=True)
    except FAILURES:
        yield
        return
    try:
        yield
    finally:
        gdb.execute(f"set {name} {parameter_text(old)}", to_string=True)


def parameter_text(value: object) -> str:
    """A gdb.parameter() value as `set` takes it; None is gdb's "unlimited"."""
    if value is None:
        return "unlimited"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


@contextlib.contextmanager
def one_cpu() -> Iterator[Optional[int]]:
    """Keep gdb's main thread on the CPU where it is, and give that CPU's number; None where that
    cannot be.  The server follows: a packet then costs a switch, not a wake-up of another CPU."""
    try:
        allowed = os.sched_getaffinity(0)
        with open("/proc/thread-self/stat", "rb") as file:
            # Field 39 of proc_pid_stat(5), counted behind the name, which may hold anything.
            cpu = int(file.read().rpartition(b")")[2].split()[36])
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, IndexError, AttributeError):
        yield None
        return
    try:
        yield cpu
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


class Selection:
    """The selected thread and frame, to come back to after the caches were flushed."""

    def __init__(self) -> None:
        self.thread: Optional[gdb.InferiorThread] = gdb.selected_thread()
        self.level = 0
        with contextlib.suppress(*FAILURES):
            self.level = gdb.selected_frame().level()

    def restore(self) -> None:
        """Select them again, without a word; a thread that is gone is let be."""
        if self.thread is None or not self.thread.is_valid():
            return
        with contextlib.suppress(*FAILURES):
            if gdb.selected_thread() != self.thread:
                self.thread.switch()
            elif self.level == 0:
                return  # what gdb selects by itself; asking for the frame would read the stack
            frame: Optional[gdb.Frame] = gdb.newest_frame()
            for _ in range(self.level):
                frame = frame.older() if frame is not None else None
            if frame is not None and gdb.selected_frame() != frame:
                frame.select()


def flush_memory() -> None:
    """Forget the memory that gdb holds; registers and frames are as they were."""
    quiet("maintenance flush dcache")


def flush_caches() -> None:
    """Forget registers, frames and memory that gdb holds of the selected inferior.

    Needed after a discard: the inferior changed while gdb thought it stood still
    (gdb manual, "Maintenance Commands").
    """
    quiet("maintenance flush register-cache")
    flush_memory()
    gdb.invalidate_cached_frames()


def pop_dummy_frames(limit: int = 256) -> None:
    """Make gdb forget calls that stopped half-way, with their breakpoints on the stack.

    Looks at the `limit` innermost frames.  Only registers change.
    """
    with contextlib.suppress(*FAILURES):
        frame: Optional[gdb.Frame] = gdb.newest_frame()
        for _ in range(limit):
            if frame is None:
                return
            if frame.type() == gdb.DUMMY_FRAME:
                frame.select()
                with setting("confirm", "off"):
                    quiet("return")
                frame = gdb.newest_frame()
            else:
                frame = frame.older()


def disconnect(connection: gdb.TargetConnection) -> None:
    """Close the connection of the selected inferior."""
    # `disconnect` forgets the threads of every inferior (gdb's target.c): where nothing else helps.
    for command in ("kill", "kill", "disconnect"):
        with contextlib.suppress(*FAILURES), setting("confirm", "off"):
            quiet(command)
        if not connection.is_valid():
            return
