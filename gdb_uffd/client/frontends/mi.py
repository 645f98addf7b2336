"""The machine interface: `-uffd-call`, `-uffd-dirty`, and `=uffd-call` when a call is over.

gdb manual, "GDB/MI Commands In Python" (gdb 12) and "GDB/MI Notifications In Python" (gdb 14).
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence
from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.commands import call
from gdb_uffd.client.commands.dirty import dirty_object
from gdb_uffd.client.frontends import hooks, mi_values
from gdb_uffd.client.names import exceptions
from gdb_uffd.client.session import last_call, libraries, sessions
from gdb_uffd.client.session.asking import machine_interface, one_cpu
from gdb_uffd.client.session.options import split_format
from gdb_uffd.client.session.printing import user_errors
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import ends, report_text
from gdb_uffd.protocol.model import CallReport, UffdError

_serials: "WeakKeyDictionary[Session, int]" = WeakKeyDictionary()
"""Of the report that each session's last notification was about."""


def _call(arguments: List[str]) -> Dict[str, Any]:
    usage = "-uffd-call [-keep] [--] EXPRESSION"
    found, rest = mi_values.options(arguments, ["keep"], usage)
    session = sessions.current()
    letters, expression = split_format(" ".join(rest).strip())
    if not expression:
        raise UffdError(f"what shall be called? usage: {usage}")
    with one_cpu() as cpu:
        report, outcome = call.run_call(session, letters, expression, "keep" in found, True, cpu)
    last = last_call.Last(report, outcome, expression)
    last_call.note(session, last)
    try:
        result = call.call_object(session, report, outcome, expression)
    finally:
        last_call.tell(session, last)
        libraries.follow(session)
    if outcome.error and outcome.stop is None and not outcome.functions:
        raise UffdError(str(result["error"]))  # nothing ran: an error like any other
    return result


def _dirty(arguments: List[str]) -> Dict[str, Any]:
    usage = "-uffd-dirty [-all]"
    found, rest = mi_values.options(arguments, ["all"], usage)
    if rest:
        raise UffdError(f"unexpected {rest[0]!r}; usage: {usage}")
    return dirty_object(sessions.current(), "all" in found)


def _notify(session: Session, last: Optional[last_call.Last]) -> None:
    """`=uffd-call`, once for each report."""
    serial, report, known = last_call.peek(session, _serials.get(session, -1))
    _serials[session] = serial
    if report is None or known:
        return
    data = _summary(report, last)
    told = exceptions.described(session, report.uncaught)
    data["uncaught"] = exceptions.as_json(told)
    gdb.notify_mi("uffd-call", mi_values.value(data))


def _summary(report: CallReport, last: Optional[last_call.Last]) -> Dict[str, Any]:
    """Few fields; `-uffd-dirty` has the others."""
    program, gdb_pages = report_text.split_pages(report)
    data: Dict[str, Any] = {"kind": report.kind}
    if last is not None:
        data["expression"] = last.expression
        outcome = last.outcome
        data["value"] = None if outcome.error else outcome.value
        data["type"] = None if outcome.error else outcome.type
        data["error"] = outcome.error or None
    return {
        **data,
        "kept": report.kept,
        "pages": len(program) + report.rest_pages,
        "gdb_pages": len(gdb_pages),
        "bytes_changed": sum(page.bytes_changed for page in program) + report.rest_bytes,
        "fed_pages": report.fed_pages,
        "refused": ends.refusal_texts(report.refusals, report.more_refused),
        "files_read": report.files_read,
        "ended": ends.end_text(report.end) or None,
        "unavailable": ends.unavailable_text(report.end) or None,
    }


def _on_inferior_call(event: object) -> None:
    """A front end may call functions without a command that has a hook."""
    if isinstance(event, gdb.InferiorCallPostEvent):
        session = sessions.selected()
        if session is not None and not session.calls.in_command:
            gdb.post_event(_settle)


@user_errors
def _settle() -> None:
    session = sessions.selected()
    if session is None or session.calls.in_command or session.calls.depth:
        return
    hooks.after_command()
    last_call.tell(session, None)


def register() -> None:
    """Add the commands; the notification where this gdb runs with a machine interface."""
    if not hasattr(gdb, "MICommand"):
        return

    class Command(gdb.MICommand):
        """One of the commands; errors are one line, as for the others."""

        def __init__(self, name: str, run: Any) -> None:
            super().__init__(name)
            self._run = run

        @user_errors
        def invoke(self, arguments: Sequence[str]) -> Dict[str, Any]:
            result = mi_values.value(self._run(list(arguments)))
            assert isinstance(result, dict)
            return result

    _commands.extend([Command("-uffd-call", _call), Command("-uffd-dirty", _dirty)])
    if hasattr(gdb, "notify_mi") and machine_interface():
        last_call.observers.append(_notify)
        gdb.events.inferior_call.connect(_on_inferior_call)


_commands: List[object] = []
