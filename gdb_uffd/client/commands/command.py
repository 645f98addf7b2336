"""The shape of a `uffd` subcommand: options, completion, errors as one line."""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional, Sequence, Type, Union

import gdb

from gdb_uffd.client.session.asking import setting
from gdb_uffd.client.session.options import Parsed, complete_options, parse_options
from gdb_uffd.client.session.printing import look, say, user_errors
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.protocol.model import UffdError

Completion = Union[int, Sequence[str], None]


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    """`set trace-commands on` shows the user's commands, not those that we read the output of."""
    if not gdb.parameter("trace-commands"):
        yield
        return
    with setting("trace-commands", "off"):
        yield


def _is_known(name: str) -> bool:
    """Whether an expression may name it."""
    try:
        gdb.parse_and_eval(name)
    except gdb.error as error:
        return not str(error).startswith("No symbol")
    except (RuntimeError, UnicodeDecodeError):
        pass  # it is there, whatever is wrong with it
    return True


def _anything(_name: str) -> bool:
    return True


def list_commands(commands: "Sequence[Type[Command]]") -> None:
    """A line a command: its name, and the first line of its help."""
    looks = look()
    heads = aligned([[f"uffd {command.name}"] for command in commands], looks)
    for head, command in zip(heads, commands):
        say(*under(head, [(command.__doc__ or "").split("\n", 1)[0]], looks))


class Command(gdb.Command):
    """A subcommand of uffd: options, completion, errors as one line."""

    name = ""
    usage = ""
    options: Sequence[str] = ()
    completer = gdb.COMPLETE_NONE
    dashes = False  # what follows may begin with a dash: -1, -x + 1

    def __init__(self) -> None:
        super().__init__(f"uffd {self.name}", gdb.COMMAND_DATA)

    @user_errors
    def invoke(self, argument: str, from_tty: bool) -> None:
        """Parse the options and run."""
        evaluates = self.completer == gdb.COMPLETE_EXPRESSION
        dashes, known = self.dashes or evaluates, _is_known if evaluates else _anything
        self.dont_repeat()
        parsed = parse_options(argument, self.options, self.usage, dashes, known)
        with _untraced():
            self.run(parsed)

    def run(self, parsed: Parsed) -> None:
        """What the command does."""
        raise NotImplementedError

    def complete(self, text: str, word: Optional[str]) -> Completion:
        """Options while the last word begins with a dash, else what `completer` says."""
        last = text[len(text.rstrip()) - len(text) :] if text.endswith(" ") else text.split(" ")[-1]
        before = text[: len(text) - len(last)].split()
        if last.startswith("-") and all(w.startswith("-") for w in before):
            if word is None:  # gdb only asks where words break
                return []
            # gdb replaces only `word`, which begins after the dash.
            cut = len(last) - len(word)
            return [option[cut:] for option in complete_options(last, self.options)]
        return self.completer

    def nothing_else(self, parsed: Parsed) -> None:
        """UffdError when the command was given an argument it does not take."""
        if parsed.rest:
            raise UffdError(f"unexpected {parsed.rest!r}; usage: {self.usage}")
