"""Small things every command needs from gdb."""

from __future__ import annotations

import contextlib
import functools
import json
import locale
import os
import re
from typing import Callable, Iterator, List, Optional, TypeVar

import gdb

from gdb_uffd.arch import RECORDED, Architecture, of_gdb
from gdb_uffd.client.session.styles import gdb_styles, is_typed
from gdb_uffd.client.show.text import STYLES, Look, can_show
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable_lines

R = TypeVar("R")


def machine() -> Architecture:
    """The selected inferior's processor."""
    return of_gdb(gdb.selected_inferior().architecture().name()) or RECORDED


def check_architecture(name: str) -> None:
    """UffdError when this gdb was built without that architecture: it would misread registers."""
    if name and not quiet(f"complete set architecture {name}").split():
        raise UffdError(
            f"this gdb does not know the architecture {name}; start one that does (gdb-multiarch)"
        )


def user_errors(function: Callable[..., R]) -> Callable[..., R]:
    """Turn what goes wrong in a command into gdb.GdbError: one line, no traceback.

    With `set python print-stack full` a mistake of ours keeps its traceback.
    """

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> R:
        try:
            return function(*args, **kwargs)
        except gdb.GdbError:
            raise
        except (UffdError, gdb.error) as error:
            raise user_error(str(error)) from None
        except OSError as error:
            raise user_error(f"uffd: {error}") from None
        except Exception as error:
            if gdb.parameter("python print-stack") == "full":
                raise
            raise user_error(
                f"uffd: internal error ({type(error).__name__}: {error}); "
                "`set python print-stack full` shows where"
            ) from None

    return wrapper


def user_error(text: str) -> gdb.GdbError:
    """An error that gdb shows as it is: one line, broken between words only where a person reads
    it."""
    text = printable_lines(text)
    if is_typed():
        looks, prefix = look(), " " * (_PREFIX if version() >= _FIRST_WITH_PREFIX else 0)
        lines = (prefix + text).split("\n")
        text = "\n".join(part for line in lines for part in looks.wrapped(line, 2))[len(prefix) :]
    return gdb.GdbError(text)


_PREFIX, _FIRST_WITH_PREFIX = 3, 17
"""Columns of the emoji and blank that gdb puts before an error (gdb manual, "Output Styling",
`set style error-prefix`), and its first version that does."""


def look() -> Look:
    """What the terminal allows now, by gdb's own settings."""
    width = None if machine_interface() else gdb.parameter("width")  # front ends have their own
    # gdb styles nothing on a dumb terminal or into a pipe (gdb manual, "Output Styling").
    colour = (
        bool(gdb.parameter("style enabled"))
        and os.environ.get("TERM", "dumb") != "dumb"
        and (version() >= _FIRST_WITH_NO_COLOR or not os.environ.get("NO_COLOR"))
        and os.isatty(1)
        and not machine_interface()
        and is_typed()
    )
    styles = {**STYLES, **gdb_styles()} if colour else STYLES
    return Look(colour, can_show(charset()), int(width) if width else 0, styles)


_FIRST_WITH_NO_COLOR = 17
"""gdb's version from which NO_COLOR turns `style enabled` off by itself."""


def charset() -> str:
    """gdb's host-charset, an iconv name."""
    try:
        return str(gdb.host_charset())
    except AttributeError:  # not in every build of gdb 12
        return locale.getpreferredencoding(False)


def say(*lines: str, indent: int = -1) -> None:
    """Print lines through gdb's pager, each broken between words where it is too wide
    (Look.wrapped); of what steers the terminal only colours of ours.  What the host's charset lacks
    becomes "?"."""
    looks = look()
    for line in [part for text in lines for part in text.split("\n")]:
        for part in looks.wrapped(line, indent):
            write(part + "\n")


def write(text: str) -> None:
    """`text` as it is, but for what the host's charset lacks."""
    try:
        text.encode(charset())
    except (LookupError, UnicodeEncodeError):
        text = text.encode("ascii", "replace").decode("ascii")
    gdb.write(text)


def say_quoted(text: str) -> None:
    """Print lines that are not ours: names in them come from files, colours too."""
    say(*printable_lines(text).splitlines())


def show_command(command: str) -> None:
    """Run a gdb command, and print what it says; without gdb's colours, which its source lines have
    although they are captured (gdb caches them so)."""
    with setting("style enabled", "off"):
        text = quiet(command)
    say_quoted(text)


def say_json(value: object) -> None:
    """Print `value` as one line, however narrow the terminal: a program reads it."""
    with setting("width", "unlimited"), setting("pagination", "off"):
        gdb.write(json.dumps(value) + "\n")


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


def file_of(symtab: gdb.Symtab) -> str:
    """The source file's name as the debug information has it."""
    return decoded(lambda: symtab.filename)


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
    with contextlib.suppress(gdb.error):  # a gdb that was built without
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
    except (RuntimeError, gdb.error):
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
        with contextlib.suppress(gdb.error):
            self.level = gdb.selected_frame().level()

    def restore(self) -> None:
        """Select them again, without a word; a thread that is gone is let be."""
        if self.thread is None or not self.thread.is_valid():
            return
        with contextlib.suppress(gdb.error):
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
    with contextlib.suppress(gdb.error):
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


_CALLERS = (gdb.NORMAL_FRAME, gdb.TAILCALL_FRAME, gdb.INLINE_FRAME)


def code_address(frame: gdb.Frame) -> int:
    """An address in the instruction that the frame is at.

    What a call returns to may be the first of another function, or nothing at all: the outermost
    frame of a fiber returns to 0.  As gdb's get_frame_address_in_block (frame.c) has it.
    """
    newer: Optional[gdb.Frame] = frame.newer()
    while newer is not None and newer.type() == gdb.INLINE_FRAME:
        newer = newer.newer()
    called = newer is not None and newer.type() in _CALLERS and frame.type() in _CALLERS
    return max(0, int(frame.pc()) - called)


def worth_telling(noise: str) -> List[str]:
    """Of what gdb printed while it connected: the warnings."""
    return [
        line
        for line in noise.splitlines()
        if line.startswith("warning:") and not line.startswith(_TOLD_BY_US)
    ]


_TOLD_BY_US = (
    "warning: No executable has been specified",
    "warning: Could not load vsyscall page",
    "warning: Could not load shared library symbols",
    "warning: Unable to find dynamic linker breakpoint function",
)
"""What the server's own warnings name already, with the remedy."""


def disconnect(connection: gdb.TargetConnection) -> None:
    """Close the connection of the selected inferior."""
    # `disconnect` forgets the threads of every inferior (gdb's target.c): where nothing else helps.
    for command in ("kill", "kill", "disconnect"):
        with contextlib.suppress(gdb.error), setting("confirm", "off"):
            quiet(command)
        if not connection.is_valid():
            return
