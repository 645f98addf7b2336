"""`set uffd ...`: real gdb parameters (gdb manual, "Parameters In Python")."""

from __future__ import annotations

from typing import Callable, Dict, Tuple, Union

import gdb


class Setting(gdb.Parameter):
    """A parameter whose `show` line is one sentence, on every gdb from 12."""

    sentence = "{}"

    def get_set_string(self) -> str:
        """Nothing to say after a `set`."""
        return ""

    def get_show_string(self, svalue: str) -> str:
        """The sentence with the value in it."""
        return self.sentence.format(svalue)


class Report(Setting):
    """Whether `print f ()` and its like are followed by a line that says what they dirtied.

    The line is printed after each gdb command that called a function of a uffd inferior,
    when that dirtied a page.  Use `uffd dirty` to see the pages at any time."""

    set_doc = "Set whether a line after each command tells what its calls dirtied."
    show_doc = "Show whether a line after each command tells what its calls dirtied."
    sentence = "The line after a command that called a function is {}."

    def __init__(self) -> None:
        super().__init__("uffd report", gdb.COMMAND_DATA, gdb.PARAM_BOOLEAN)
        self.value = True


class Python(Setting):
    """The Python interpreter that runs the server (it needs gdb_uffd installed).

    Empty (the default): $GDB_UFFD_PYTHON, else the .venv of the checkout, else the
    interpreter that installed the package.  Takes effect at the next `uffd spawn`."""

    set_doc = "Set the Python interpreter that runs the server."
    show_doc = "Show the Python interpreter that runs the server."
    sentence = 'The server\'s Python interpreter is "{}".'

    def __init__(self) -> None:
        super().__init__("uffd python", gdb.COMMAND_FILES, gdb.PARAM_OPTIONAL_FILENAME)
        self.value = ""


class DiffContext(Setting):
    """How many equal lines `uffd diff` shows around each line that differs.

    A line is 16 bytes; 0 (the default) shows only what differs."""

    set_doc = "Set how many equal lines uffd diff shows around a different one."
    show_doc = "Show how many equal lines uffd diff shows around a different one."
    sentence = "The number of equal lines around a different one is {}."

    def __init__(self) -> None:
        super().__init__("uffd diff-context", gdb.COMMAND_DATA, gdb.PARAM_ZUINTEGER)
        self.value = 0


_all: Dict[str, Setting] = {}


Settings = Tuple[Tuple[str, Callable[[], Setting]], ...]

SETTINGS: Settings = (("report", Report), ("python", Python), ("diff-context", DiffContext))


def register(more: Settings = ()) -> None:
    """Make the parameters, and those of other modules; the prefixes `set uffd` and `show uffd`
    must exist."""
    for name, kind in (*SETTINGS, *more):
        _all[name] = kind()


def names() -> "list[str]":
    """The parameters' names, without the prefix."""
    return list(_all)


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
