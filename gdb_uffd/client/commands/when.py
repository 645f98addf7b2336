"""`uffd when`: the first snapshot at which an expression is true."""

from __future__ import annotations

from typing import Optional

import gdb

from gdb_uffd.client.commands.at_snapshots import Interrupted, NoValue, arguments, evaluate
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import snapshots
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import SCHEMA_VERSION, UffdError


class WhenCommand(Command):
    """Tell the first snapshot at which an expression is true.

    Usage: uffd when [-monotonic] [-json] EXPRESSION [in RANGE]

      -monotonic   once true it stays true: search by halving
      -json        print one line, one JSON object

    RANGE as in `uffd map`.  Functions may be called; what they do is undone.  gdb
    stays where it is: `uffd goto N` goes to the snapshot found.

    Example:
        uffd when counter > 100
        uffd when -monotonic count_nodes(head) >= 1000"""

    name, usage = "when", "uffd when [-monotonic] [-json] EXPRESSION [in RANGE]"
    options, completer = ("monotonic", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Search."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be true? usage: {self.usage}")
        when(session, parsed.rest, parsed.has("monotonic"), parsed.has("json"))


def when(session: Session, text: str, monotonic: bool, as_json: bool) -> None:
    """Tell the first snapshot at which the expression is true."""
    every, expression, numbers = arguments(session, text)
    search = _Search(session, expression)
    with travel.excursion(session):
        try:
            found = search.bisect(numbers) if monotonic else search.first(numbers)
        except (Interrupted, KeyboardInterrupt):
            raise UffdError("interrupted") from None
    if as_json:
        info = None if found is None else to_json(every[found])
        say_json({"schema": SCHEMA_VERSION, "expression": expression, "snapshot": info})
    elif found is None:
        say(f"{expression}: true at none of the snapshots {numbers[0]} to {numbers[-1]}")
        if search.failed:
            say(f"it has no value at {search.failed} of them, first at {search.failure}")
    else:
        say(snapshots.headline(every, found, look()), f"`uffd goto {found}` goes there")


class _Search:
    """Looks for the first snapshot at which an expression is true."""

    def __init__(self, session: Session, expression: str) -> None:
        self._session, self._expression = session, expression
        self.failed, self.failure = 0, ""

    def _true(self, number: int) -> bool:
        return evaluate(self._session, number, self._expression, bool)

    def first(self, numbers: range) -> Optional[int]:
        """In order; where the expression has no value it is not true."""
        for number in numbers:
            try:
                if self._true(number):
                    return number
            except NoValue as error:
                self.failed += 1
                self.failure = self.failure or f"{number}: {error}"
        if self.failed == len(numbers):
            raise UffdError(f"no value at any snapshot; at {self.failure}")
        return None

    def bisect(self, numbers: range) -> Optional[int]:
        """By halving: once true it must stay true."""
        low, high = 0, len(numbers)
        while low < high:
            middle = (low + high) // 2
            try:
                true = self._true(numbers[middle])
            except NoValue as error:
                raise UffdError(f"at snapshot {numbers[middle]}: {error}") from None
            low, high = (low, middle) if true else (middle + 1, high)
        return numbers[low] if low < len(numbers) else None
