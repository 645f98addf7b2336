"""The arguments of the commands, as gdb hands them over: one line of text.  No gdb here."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import Callable, FrozenSet, List, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.outputs import TRACE
from gdb_uffd.protocol.model import UffdError

_LIKE_AN_OPTION = re.compile(r"--?([A-Za-z_]\w*)(-\w+)*")
"""A word that is a mistyped option, or else "minus x", where x is a name of the program's."""

_OPERAND = re.compile(r"[\w$'\"]")
"""What an operator would have to stand before."""


@dataclass(frozen=True)
class Parsed:
    """Options that were given (without their dash) and the text after them, verbatim."""

    options: FrozenSet[str]
    rest: str

    def has(self, name: str) -> bool:
        """Whether ``-name`` was given."""
        return name in self.options


def parse_options(
    text: str,
    allowed: Sequence[str],
    usage: str,
    dashes: bool = False,
    known: Callable[[str], bool] = lambda name: True,
) -> Parsed:
    """Split leading ``-option`` words from `text`; ``--`` ends them.

    As gdb's own commands do (gdb manual, "Command Options"), an option may be shortened to
    an unambiguous beginning.  With `dashes` a word that no option begins with starts the
    rest (``-x + 1`` is an expression), if it can: ``-x`` of a name that is `known` to the
    program; without, it is an error.  UffdError names `usage`.
    """
    found = set()
    rest = text.lstrip()
    while rest.startswith("-"):
        word = rest.split(None, 1)[0]
        after = rest[len(word) :].lstrip()
        if word == "--":
            rest = after
            break
        names = [name for name in allowed if name == word[1:]] or [
            name for name in allowed if len(word) > 1 and name.startswith(word[1:])
        ]
        if len(names) == 1:
            found.add(names[0])
            rest = after
        elif names:
            raise UffdError(f"{word} is ambiguous: {', '.join('-' + n for n in names)}")
        elif dashes and not _is_no_expression(word, after, known):
            break
        else:
            raise UffdError(f"no option {word}; usage: {usage}")
    return Parsed(frozenset(found), rest.strip())


def _is_no_expression(word: str, after: str, known: Callable[[str], bool]) -> bool:
    found = _LIKE_AN_OPTION.fullmatch(word)
    if found is None:
        return False
    followed = len(found[1]) > 1 and _OPERAND.match(after) is not None
    return followed or not known(found[1])


def one_or_two(text: str, what: str, usage: str) -> Tuple[str, str]:
    """The first word, and the second, a file, as an absolute path ("" when left out); quotes
    resolved.  `what` they are, for the UffdError when they cannot be read."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UffdError(f"cannot read the {what} ({error}); usage: {usage}") from None
    if not 1 <= len(words) <= 2:
        raise UffdError(f"usage: {usage}")
    return words[0], _absolute(words[1]) if len(words) > 1 else ""


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def split_files(text: str, usage: str) -> Tuple[str, str]:
    """CORE and EXECUTABLE ("" when left out) as absolute paths, quotes and ~ resolved."""
    core, executable = one_or_two(text, "file names", usage)
    return _absolute(core), executable


def check_readable(path: str, what: str) -> None:
    """UffdError unless `path` is a regular file that can be opened for reading."""
    try:
        # Before it is opened: opening a pipe would wait for a writer.
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UffdError(f"{what} {path}: is a directory")
        if not stat.S_ISREG(mode):
            raise UffdError(f"{what} {path}: not a regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UffdError(f"{what} {path}: {(error.strerror or str(error)).lower()}") from None


def check_recording(path: str) -> None:
    """UffdError unless `path` may be a core, which is a file, or a trace, which is a directory (the
    server tells what is wrong with one)."""
    if not path.rstrip("/").endswith(TRACE) or not os.path.isdir(path):
        check_readable(path, "core")


def complete_options(word_text: str, allowed: Sequence[str]) -> List[str]:
    """The options that `word_text` ("-k") can become, with their dash."""
    return [f"-{name}" for name in allowed if f"-{name}".startswith(word_text)]


def split_format(text: str) -> Tuple[str, str]:
    """``/x f()`` as ("/x", "f()"), the format letters of `print` (gdb manual, "Output Formats")."""
    if not text.startswith("/"):
        return "", text
    letters = text.split(None, 1)[0]
    return letters, text[len(letters) :].strip()
