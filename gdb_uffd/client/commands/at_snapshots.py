"""`uffd map` and `uffd when`: one expression at many snapshots, nothing kept."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Match, Optional, Tuple, TypeVar

import gdb

from gdb_uffd.client.commands import call
from gdb_uffd.client.commands.options import split_format
from gdb_uffd.client.names import exceptions
from gdb_uffd.client.session import travel
from gdb_uffd.client.session.asking import look, pop_dummy_frames, say, say_json
from gdb_uffd.client.session.outcome import Outcome
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.wire import one_line
from gdb_uffd.client.show import snapshots, timeline
from gdb_uffd.client.show.timeline import Point, Timeline
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.messages_calls import CommitPending
from gdb_uffd.protocol.model import SCHEMA_VERSION, SnapshotInfo, UffdError

_NUMBERS = (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_BOOL, gdb.TYPE_CODE_ENUM, gdb.TYPE_CODE_CHAR)

_FORMATS = re.compile(r"/(r?)([xduotacfszi]?)(r?)$")
"""Letters that `print` takes for one value (gdb manual, "Output Formats"), r for raw."""


class Interrupted(Exception):
    """Ctrl-C, while a called function ran or between two calls."""


def map_(session: Session, text: str, as_json: bool, full: bool) -> None:
    """Evaluate at every snapshot, or those of the range; print the table."""
    letters, rest = split_format(text)
    shape = _FORMATS.fullmatch(letters or "/")
    if shape is None:
        raise UffdError(f"{letters} is no format for one value (/x, /d, /f …)")
    every, expression, numbers = _arguments(session, rest)
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


def _arguments(session: Session, text: str) -> Tuple[List[SnapshotInfo], str, range]:
    """The snapshots, the expression, and the numbers of those that it is meant for."""
    every = travel.all_snapshots(session)
    expression, where = snapshots.split_range(text)
    if not where:
        return every, expression, range(len(every))
    return every, expression, snapshots.find_range(every, where, session.snapshot)


def _point(session: Session, number: int, expression: str, shape: Match[str]) -> Point:
    """The value at one snapshot, or why there is none."""

    def told(value: gdb.Value) -> Point:
        return Point(number, _text(value, shape), str(value.type), _number(value))

    try:
        return _evaluate(session, number, expression, told)
    except _NoValue as error:
        thrown = exceptions.as_json(error.uncaught)
        return Point(number, error=str(error), uncaught=thrown)


class _NoValue(UffdError):
    """The expression has no value at a snapshot; `uncaught`: as gdb_uncaught tells it."""

    uncaught: Optional[Dict[str, Any]] = None


T = TypeVar("T")


def _evaluate(session: Session, number: int, expression: str, use: Callable[[gdb.Value], T]) -> T:
    """`use` of the value at snapshot `number`, while that is where gdb stands.

    _NoValue: one line; Interrupted; any other UffdError ends it all.
    """
    try:
        travel.jump(session, number)
    except UffdError as error:
        if session.server.ended() is not None:
            raise
        raise _NoValue(one_line(str(error))) from None
    outcome = Outcome()
    session.last_call = 0
    with call.watch_stops(outcome):
        try:
            return use(gdb.parse_and_eval(expression))
        except gdb.error as error:
            text = one_line(str(error))
    if session.server.ended() is not None:
        raise UffdError(f"{text}{session.death()}")
    called = bool(session.last_call)
    if called:
        outcome.uncaught = exceptions.note(session)
        pop_dummy_frames()  # it may have stopped half-way
    if re.search(r"\bSIGINT\b", text) or (outcome.stop and outcome.stop.reason == "SIGINT"):
        raise Interrupted
    failure = _NoValue(_why(session, text, outcome if called else None))
    failure.uncaught = outcome.uncaught
    raise failure


def _why(session: Session, text: str, outcome: Optional[Outcome]) -> str:
    """Why there is no value: the server's words where gdb's say little.  `outcome`: of a call."""
    if outcome is not None:
        ran = session.request(CommitPending())
        if ran is not None and ran.unavailable:
            return f"touched memory that was not recorded: {ran.unavailable}"
        if ran is not None and ran.ended:
            return one_line((ran.end or End(ran.ended)).short())
        if outcome.uncaught is not None:
            return exceptions.text(outcome.uncaught)
        signal = re.search(r"\b(SIG[A-Z0-9]+)\b", text)
        if outcome.stop is not None and (outcome.stop.reason or signal):
            reason = outcome.stop.reason or (signal[1] if signal else "")
            return f"{reason} in {outcome.stop.where}"
    if "Cannot access memory" in text:
        reason = session.last_unavailable()
        return f"{text} ({reason})" if reason else text
    return text


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
    except (gdb.error, OverflowError, ValueError):
        return None


def when(session: Session, text: str, monotonic: bool, as_json: bool) -> None:
    """Tell the first snapshot at which the expression is true."""
    every, expression, numbers = _arguments(session, text)
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
        return _evaluate(self._session, number, self._expression, bool)

    def first(self, numbers: range) -> Optional[int]:
        """In order; where the expression has no value it is not true."""
        for number in numbers:
            try:
                if self._true(number):
                    return number
            except _NoValue as error:
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
            except _NoValue as error:
                raise UffdError(f"at snapshot {numbers[middle]}: {error}") from None
            low, high = (low, middle) if true else (middle + 1, high)
        return numbers[low] if low < len(numbers) else None
