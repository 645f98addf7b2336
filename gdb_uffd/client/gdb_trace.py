"""`uffd trace`: what a call looked at, page by page."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Tuple

from gdb_uffd.client import gdb_call, gdb_libraries, gdb_output, gdb_places, gdb_uncaught, trace
from gdb_uffd.client.gdb_outcome import Outcome
from gdb_uffd.client.gdb_session import Session
from gdb_uffd.client.gdb_symbols import Symbols
from gdb_uffd.client.gdb_util import (
    Selection,
    flush_caches,
    look,
    one_cpu,
    pop_dummy_frames,
    say,
    say_json,
)
from gdb_uffd.client.options import split_format
from gdb_uffd.model import SCHEMA_VERSION, CallReport, UffdError

Traced = Tuple[List[trace.Touch], int, CallReport, Outcome]


def show(session: Session, text: str, as_json: bool, full: bool) -> None:
    """`uffd trace`."""
    letters, expression = split_format(text)
    touches, missed, report, outcome = _traced(session, letters, expression, as_json)
    try:
        _tell(session, expression, (touches, missed, report, outcome), as_json, full)
    finally:
        gdb_libraries.follow(session)


def _tell(session: Session, expression: str, traced: Traced, as_json: bool, full: bool) -> None:
    touches, missed, report, outcome = traced
    names = _names(session)
    if as_json:
        say_json(_object(session, touches, missed, report, outcome, expression, names))
        return
    gdb_output.print_rest(report)
    if not outcome.error:
        gdb_call.say_value(outcome)
    total = session.ready.total_pages
    say(*trace.lines(touches, missed, total, outcome.waited_ms, names, look(), full))
    failure = gdb_call.failure_line(session, report, outcome, look())
    if failure:
        raise UffdError(failure)


def _traced(session: Session, letters: str, expression: str, as_json: bool) -> Traced:
    """Evaluate in a process of its own, in which nothing is there yet."""
    began = time.perf_counter()
    selection = Selection()
    context = session.context
    session.calls_pending = False
    session.request("trace-begin")
    try:
        with one_cpu() as cpu:
            report, outcome = gdb_call.run_call(session, letters, expression, False, as_json, cpu)
        outcome.began = began
        if outcome.stop is not None and outcome.stop.breakpoint:
            report.kept = False  # the process that stands there goes
            pop_dummy_frames()
        touches, missed = trace.parse(session.request("trace-end"))
    finally:
        with contextlib.suppress(UffdError):
            session.request("trace-drop")
        session.context = context  # `uffd dirty` still tells of the call before
        flush_caches()
        selection.restore()
    return touches, missed, report, outcome


def _names(session: Session) -> trace.Names:
    symbols = Symbols(session)
    return trace.Names(symbols.writer, gdb_places.section, symbols.thread)


def _object(
    session: Session,
    touches: List[trace.Touch],
    missed: int,
    report: CallReport,
    outcome: Outcome,
    expression: str,
    names: trace.Names,
) -> Dict[str, Any]:
    """The object of `uffd trace -json` (docs/json.md)."""
    touched = [trace.touch_json(touch, order, names) for order, touch in enumerate(touches, 1)]
    data: Dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "expression": expression,
        "value": None if outcome.error else outcome.value,
        "type": None if outcome.error else outcome.type,
        "wall_ms": round(outcome.waited_ms(), 3),
    }
    if outcome.error:
        data["error"] = gdb_call.failure_line(session, report, outcome, look())
    if outcome.uncaught:
        data["uncaught"] = gdb_uncaught.as_json(outcome.uncaught)
    return {
        **data,
        "total_pages": session.ready.total_pages,
        "output": report.output_text(),
        "touched": touched,
        "not_listed": missed,
    }
