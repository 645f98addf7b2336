"""`uffd map`: one expression at many snapshots, nothing kept."""

from __future__ import annotations

import re
from typing import Match, Optional

import gdb

from gdb_uffd.client.commands.at_snapshots import Interrupted, NoValue, arguments, evaluate
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.names import exceptions
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.options import Parsed, split_format
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import timeline
from gdb_uffd.client.show.timeline import Point, Timeline
from gdb_uffd.protocol.model import UffdError

_NUMBERS = (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_BOOL, gdb.TYPE_CODE_ENUM, gdb.TYPE_CODE_CHAR)


_FORMATS = re.compile(r"/(r?)([xduotacfszi]?)(r?)$")
"""Letters that `print` takes for one value (gdb manual, "Output Formats"), r for raw."""


class MapCommand(Command):
    """Evaluate an expression at every snapshot.

    Usage: uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]

      -json   print one line, one JSON object
      -full   do not fold or leave out rows of a long table

    RANGE is A..B or A-B (both included), A.. or ..B, or one snapshot; A and B are
    numbers, labels, start or end.  Functions may be called; what they do is undone
    each time, and breakpoints do not stop them.  At each snapshot the thread that
    was current there is the selected one.  Ctrl-C ends it with what there is.

    Example:
        uffd map counter
        uffd map sum(head) in 2..10"""

    name, usage = "map", "uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]"
    options, completer = ("json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Go through the snapshots."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be evaluated? usage: {self.usage}")
        map_(session, parsed.rest, parsed.has("json"), parsed.has("full"))


def map_(session: Session, text: str, as_json: bool, full: bool) -> None:
    """Evaluate at every snapshot, or those of the range; print the table."""
    letters, rest = split_format(text)
    shape = _FORMATS.fullmatch(letters or "/")
    if shape is None:
        raise UffdError(f"{letters} is no format for one value (/x, /d, /f …)")
    every, expression, numbers = arguments(session, rest)
    line = Timeline(expression, [])
    with travel.excursion(session):
        try:
            for number in numbers:
                line.points.append(_point(session, number, expression, shape))
        except (Interrupted, KeyboardInterrupt):
            line.interrupted = True
    if as_json:
        say_json(timeline.as_json(line, every))
        return
    errors = {point.error for point in line.points}
    if len(errors) == 1 and "" not in errors and len(line.points) > 1:
        raise UffdError(f"{errors.pop()} (the same at each of {len(line.points)} snapshots)")
    say(*timeline.lines(line, every, look(), full))
    if line.interrupted:
        missing = len(numbers) - len(line.points)
        raise UffdError(f"interrupted: {missing} of {len(numbers)} snapshots are missing")


def _point(session: Session, number: int, expression: str, shape: Match[str]) -> Point:
    """The value at one snapshot, or why there is none."""

    def told(value: gdb.Value) -> Point:
        return Point(number, _text(value, shape), str(value.type), _number(value))

    try:
        return evaluate(session, number, expression, told)
    except NoValue as error:
        thrown = exceptions.as_json(error.uncaught)
        return Point(number, error=str(error), uncaught=thrown)


def _text(value: gdb.Value, shape: Match[str]) -> str:
    raw, letter = bool(shape[1] or shape[3]), shape[2]
    if letter:
        return str(value.format_string(format=letter, raw=raw))
    return str(value.format_string(raw=raw))


def _number(value: gdb.Value) -> Optional[float]:
    code = value.type.strip_typedefs().code
    try:
        if code in _NUMBERS:
            return int(value)
        return float(value) if code == gdb.TYPE_CODE_FLT else None
    except FAILURES:
        return None
