"""What the user reads goes through gdb: lines, errors in one line, JSON."""

from __future__ import annotations

import functools
import json
import locale
import os
from typing import Callable, List, TypeVar

import gdb

from gdb_uffd.client.session.asking import machine_interface, quiet, setting, version
from gdb_uffd.client.session.styles import gdb_styles, is_typed
from gdb_uffd.client.show.text import STYLES, Look, can_show
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable_lines

R = TypeVar("R")


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
