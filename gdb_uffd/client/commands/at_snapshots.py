"""An expression at another snapshot, for `uffd map` and `uffd when`; nothing is kept."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

import gdb

from gdb_uffd.client.names import exceptions
from gdb_uffd.client.names.call_stops import watch_stops
from gdb_uffd.client.session import travel
from gdb_uffd.client.session.asking import FAILURES, pop_dummy_frames
from gdb_uffd.client.session.outcome import Outcome
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import ends, snapshots
from gdb_uffd.protocol.messages_calls import CommitPending
from gdb_uffd.protocol.model import SnapshotInfo, UffdError
from gdb_uffd.terminal import one_line


class Interrupted(Exception):
    """Ctrl-C, while a called function ran or between two calls."""


def arguments(session: Session, text: str) -> Tuple[List[SnapshotInfo], str, range]:
    """The snapshots, the expression, and the numbers of those that it is meant for."""
    every = travel.all_snapshots(session)
    expression, where = snapshots.split_range(text)
    if not where:
        return every, expression, range(len(every))
    return every, expression, snapshots.find_range(every, where, session.position.snapshot)


class NoValue(UffdError):
    """The expression has no value at a snapshot; `uncaught`: as names/exceptions.py tells it."""

    uncaught: Optional[Dict[str, Any]] = None


T = TypeVar("T")


def evaluate(session: Session, number: int, expression: str, use: Callable[[gdb.Value], T]) -> T:
    """`use` of the value at snapshot `number`, while that is where gdb stands.

    NoValue: one line; Interrupted; any other UffdError ends it all.
    """
    try:
        travel.jump(session, number)
    except UffdError as error:
        if session.server.ended() is not None:
            raise
        raise NoValue(one_line(str(error))) from None
    outcome = Outcome()
    session.calls.last = 0
    with watch_stops(outcome):
        try:
            return use(gdb.parse_and_eval(expression))
        except FAILURES as error:
            text = one_line(str(error))
    if session.server.ended() is not None:
        raise UffdError(f"{text}{session.death()}")
    called = bool(session.calls.last)
    if called:
        outcome.uncaught = exceptions.note(session)
        pop_dummy_frames()  # it may have stopped half-way
    if re.search(r"\bSIGINT\b", text) or (outcome.stop and outcome.stop.reason == "SIGINT"):
        raise Interrupted
    failure = NoValue(_why(session, text, outcome if called else None))
    failure.uncaught = outcome.uncaught
    raise failure


def _why(session: Session, text: str, outcome: Optional[Outcome]) -> str:
    """Why there is no value: the server's words where gdb's say little.  `outcome`: of a call."""
    if outcome is not None:
        ran = session.request(CommitPending())
        if ran is not None and ran.end is not None:
            missing = ends.unavailable_text(ran.end)
            if missing:
                return f"touched memory that was not recorded: {missing}"
            return one_line(ends.end_short(ran.end))
        if outcome.uncaught is not None:
            return exceptions.text(outcome.uncaught)
        signal = re.search(r"\b(SIG[A-Z0-9]+)\b", text)
        if outcome.stop is not None and (outcome.stop.reason or signal):
            reason = outcome.stop.reason or (signal[1] if signal else "")
            return f"{reason} in {outcome.stop.where}"
    if "Cannot access memory" in text:
        lacking = session.last_unavailable()
        return text if lacking is None else f"{text} ({one_line(ends.missing_text(lacking))})"
    return text
