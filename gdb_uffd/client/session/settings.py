"""`set uffd ...`: real gdb parameters (gdb manual, "Parameters In Python")."""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Tuple, Union

import gdb

from gdb_uffd.client.session.asking import parameter_text
from gdb_uffd.client.session.printing import look, say, user_error
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.protocol.model import ENGINE_AUTO, ENGINES, UffdError


class Setting(gdb.Parameter):
    """A parameter whose `show` line is one sentence, on every gdb from 12."""

    sentence = "{}"
    set_doc = ""

    def get_set_string(self) -> str:
        """Nothing to say after a `set`."""
        return ""

    def get_show_string(self, svalue: str) -> str:
        """The sentence with the value in it."""
        return self.sentence.format(svalue)


class ReportSetting(Setting):
    """Whether a line after `print f ()` and its like says what they dirtied.

    The line is printed after each gdb command that called a function of a uffd
    inferior, when that dirtied a page.  Use `uffd dirty` to see the pages at any
    time."""

    set_doc = "Set whether a line tells what calls dirtied."
    show_doc = "Show whether a line tells what calls dirtied."
    sentence = "The line after a command that called a function is {}."

    def __init__(self) -> None:
        super().__init__("uffd report", gdb.COMMAND_DATA, gdb.PARAM_BOOLEAN)
        self.value = True


class PythonSetting(Setting):
    """The Python interpreter that runs the server (it needs gdb_uffd installed).

    Empty (the default): $GDB_UFFD_PYTHON, else the .venv of the checkout, else the
    interpreter that installed the package.  Takes effect at the next `uffd spawn`."""

    set_doc = "Set the Python interpreter that runs the server."
    show_doc = "Show the Python interpreter that runs the server."
    sentence = 'The server\'s Python interpreter is "{}".'

    def __init__(self) -> None:
        super().__init__("uffd python", gdb.COMMAND_FILES, gdb.PARAM_OPTIONAL_FILENAME)
        self.value = ""


class DiffContextSetting(Setting):
    """How many equal lines `uffd diff` shows around each line that differs.

    A line is 16 bytes, 8 on a narrow terminal; 0 (the default) shows only what
    differs."""

    set_doc = "Set how many equal lines `uffd diff` shows."
    show_doc = "Show how many equal lines `uffd diff` shows."
    sentence = "The number of equal lines around a different one is {}."

    def __init__(self) -> None:
        super().__init__("uffd diff-context", gdb.COMMAND_DATA, gdb.PARAM_ZUINTEGER)
        self.value = 0


class EngineSetting(Setting):
    """How the pages that a call writes are found (docs/engines.md).

    auto (the default): the best that works on this kernel, tried out: wp-sync for
    calls that you look at, wp-async where a call is made many times.
    wp-sync: write-protected pages; each first write is seen, and who made it.
    wp-async: the kernel notes the writes itself; cheapest; no writer is known.
    soft-dirty: the kernel's soft-dirty bits; slow, for comparison.
    compare: the bytes themselves; needs least of the kernel.

    Applies to the next process: at once when nothing is kept, else after `uffd
    reset`.  `uffd doctor` shows which of them work here."""

    set_doc = "Set how the pages that a call writes are found."
    show_doc = "Show how the pages that a call writes are found."
    sentence = 'The tracking engine is "{}".'

    def __init__(self) -> None:
        super().__init__("uffd engine", gdb.COMMAND_DATA, gdb.PARAM_ENUM, [ENGINE_AUTO, *ENGINES])
        self.value = self._applied = ENGINE_AUTO

    def get_set_string(self) -> str:
        """Tell every session; a session whose kernel cannot do it keeps what it had."""
        wanted = str(self.value)
        try:
            said = [apply(wanted) for apply in self.listeners]
        except UffdError as error:
            self.value = self._applied
            raise user_error(str(error)) from None
        self._applied = wanted
        return "\n".join(filter(None, said))

    listeners: List[Callable[[str], str]] = []


class FilesFromSetting(Setting):
    """Where the files of the machine are that the core comes from.

    One or several of these, joined by ":"; what they hold is used before what this
    machine has at the same path, for what runs and for gdb's symbols:
    - a folder with the files under their paths: a root file system, a container's
      /proc/PID/root;
    - a folder with unpacked packages beside each other, or with libraries and
      debug files in a heap, which are found by name and build-id;
    - an archive that `docker save` wrote, an OCI image, or a tar of a root file
      system, compressed or not.
    Takes effect at the next `uffd spawn`; `uffd doctor CORE` shows what is found."""

    set_doc = "Set where the recorded machine's files are."
    show_doc = "Show where the recorded machine's files are."
    sentence = 'The recorded machine\'s files come from "{}".'

    def __init__(self) -> None:
        super().__init__("uffd files-from", gdb.COMMAND_FILES, gdb.PARAM_OPTIONAL_FILENAME)
        self.value = self._kept = ""

    def get_set_string(self) -> str:
        """Absolute paths, since the server runs in another folder; all of them must be there."""
        text = str(self.value or "")
        words = [text] if os.path.lexists(os.path.expanduser(text)) else text.split(":")
        paths = [os.path.abspath(os.path.expanduser(word)) for word in words if word]
        missing = [path for path in paths if not os.path.exists(path)]
        if missing:
            self.value = self._kept
            raise user_error(f"{missing[0]}: no such file or folder; files-from is unchanged")
        self.value = self._kept = ":".join(paths)
        return ""


class UnpackLimitSetting(Setting):
    """How many MiB a compressed core, trace or archive (files-from) may unpack to.

    0 (the default): what is plausible, up to 256 GiB, of which no more than 1,000
    times the compressed file's size (and 64 MiB) is anything but zeros.  A number
    allows that much of anything, "unlimited" any amount.  Takes effect at the next
    `uffd spawn`."""

    set_doc = "Set how many MiB a compressed file may unpack to."
    show_doc = "Show how many MiB a compressed file may unpack to."
    sentence = "MiB that a compressed file may unpack to (0: what is plausible): {}."

    def __init__(self) -> None:
        super().__init__("uffd unpack-limit", gdb.COMMAND_FILES, gdb.PARAM_ZUINTEGER_UNLIMITED)
        self.value = 0


_all: Dict[str, Setting] = {}


Settings = Tuple[Tuple[str, Callable[[], Setting]], ...]

SETTINGS: Settings = (
    ("report", ReportSetting),
    ("python", PythonSetting),
    ("diff-context", DiffContextSetting),
    ("engine", EngineSetting),
    ("files-from", FilesFromSetting),
    ("unpack-limit", UnpackLimitSetting),
)


def register(more: Settings = ()) -> None:
    """Make the parameters, and those of other modules; the prefixes `set uffd` and `show uffd`
    must exist."""
    for name, kind in (*SETTINGS, *more):
        _all[name] = kind()


def show_all() -> None:
    """A line a setting: its name, its value, and what it is about."""
    looks = look()
    rows = [[name, parameter_text(gdb.parameter(f"uffd {name}")) or '""'] for name in _all]
    for head, setting in zip(aligned(rows, looks), _all.values()):
        say(*under(head, [setting.set_doc.partition(" ")[2].rstrip(".")], looks))


def value(name: str) -> Union[bool, int, str, None]:
    """The parameter's value; None where gdb says "unlimited"."""
    found = _all[name].value
    return found if isinstance(found, (bool, int, str)) else None


def report() -> bool:
    """`set uffd report`."""
    return bool(value("report"))


def python() -> str:
    """`set uffd python`, "" when it is not set."""
    return str(value("python") or "")


def diff_context() -> int:
    """`set uffd diff-context`."""
    return int(value("diff-context") or 0)


def engine() -> str:
    """`set uffd engine`."""
    return str(value("engine") or ENGINE_AUTO)


def files_from() -> str:
    """`set uffd files-from`, "" when it is not set; relative paths from gdb's folder."""
    return str(value("files-from") or "")


def unpack_limit() -> int:
    """`set uffd unpack-limit` in MiB; 0: not set, -1: unlimited."""
    found = value("unpack-limit")
    return -1 if found is None else int(found)


def on_engine(tell: Callable[[str], str]) -> None:
    """`tell` is called with what `set uffd engine` is set to; its answer is shown, its UffdError
    undoes the setting."""
    EngineSetting.listeners.append(tell)
