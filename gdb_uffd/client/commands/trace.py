"""`uffd trace`: what a call looked at, page by page."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Tuple

import gdb

from gdb_uffd.client.commands import call
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.names import addresses, exceptions
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import libraries, output, sessions
from gdb_uffd.client.session.asking import Selection, flush_caches, one_cpu, pop_dummy_frames
from gdb_uffd.client.session.options import Parsed, split_format
from gdb_uffd.client.session.outcome import Outcome
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import first_touches
from gdb_uffd.protocol.messages_rerun import PageTouch, TraceBegin, TraceDrop, TraceEnd
from gdb_uffd.protocol.model import SCHEMA_VERSION, CallReport, UffdError


class TraceCommand(Command):
    """Evaluate an expression, show the first touch of each page.

    Usage: uffd trace [-json] [-full] [--] [/FMT] EXPRESSION

      -json    print one line, one JSON object
      -full    do not leave out lines of a long list

    What the call looked at, not only what it changed: every page in the order of
    its first read, write or instruction fetch ("run"; "read+w": read, and written
    later), with the function and line.  It runs in another process, in which no
    page is there yet, and what it did is forgotten.

    Example:
        uffd trace sum()"""

    name, usage = "trace", "uffd trace [-json] [-full] [--] EXPRESSION"
    options, completer = ("json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Evaluate in the other process."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be traced? usage: {self.usage}")
        show(session, parsed.rest, parsed.has("json"), parsed.has("full"))


Traced = Tuple[List[PageTouch], int, CallReport, Outcome]


def show(session: Session, text: str, as_json: bool, full: bool) -> None:
    """`uffd trace`."""
    letters, expression = split_format(text)
    touches, missed, report, outcome = _traced(session, letters, expression, as_json)
    try:
        _tell(session, expression, (touches, missed, report, outcome), as_json, full)
    finally:
        libraries.follow(session)


def _tell(session: Session, expression: str, traced: Traced, as_json: bool, full: bool) -> None:
    touches, missed, report, outcome = traced
    names = _names(session)
    if as_json:
        say_json(_object(session, touches, missed, report, outcome, expression, names))
        return
    output.print_rest(report)
    if not outcome.error:
        call.say_value(outcome)
    total = session.ready.total_pages
    say(*first_touches.lines(touches, missed, total, outcome.waited_ms, names, look(), full))
    failure = call.failure_line(session, report, outcome, look())
    if failure:
        raise UffdError(failure)


def _traced(session: Session, letters: str, expression: str, as_json: bool) -> Traced:
    """Evaluate in a process of its own, in which nothing is there yet."""
    began = time.perf_counter()
    selection = Selection()
    context = session.calls.context
    session.calls.pending = False
    session.request(TraceBegin())
    try:
        with one_cpu() as cpu:
            report, outcome = call.run_call(session, letters, expression, False, as_json, cpu)
        outcome.began = began
        if outcome.stop is not None and outcome.stop.breakpoint:
            report.kept = False  # the process that stands there goes
            pop_dummy_frames()
        traced = session.request(TraceEnd())
    finally:
        with contextlib.suppress(UffdError):
            session.request(TraceDrop())
        session.calls.context = context  # `uffd dirty` still tells of the call before
        flush_caches()
        selection.restore()
    return traced.touched, traced.missed, report, outcome


def _names(session: Session) -> first_touches.Names:
    symbols = ReportSymbols(session)
    return first_touches.Names(symbols.writer, addresses.section, symbols.thread)


def _object(
    session: Session,
    touches: List[PageTouch],
    missed: int,
    report: CallReport,
    outcome: Outcome,
    expression: str,
    names: first_touches.Names,
) -> Dict[str, Any]:
    """The object of `uffd trace -json` (docs/json.md)."""
    touched = [
        first_touches.touch_json(touch, order, names) for order, touch in enumerate(touches, 1)
    ]
    data: Dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "expression": expression,
        "value": None if outcome.error else outcome.value,
        "type": None if outcome.error else outcome.type,
        "wall_ms": round(outcome.waited_ms(), 3),
    }
    if outcome.error:
        data["error"] = call.failure_line(session, report, outcome, look())
    if outcome.uncaught:
        data["uncaught"] = exceptions.as_json(outcome.uncaught)
    return {
        **data,
        "total_pages": session.ready.total_pages,
        "output": report.output_text(),
        "touched": touched,
        "not_listed": missed,
    }
