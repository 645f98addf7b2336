"""`uffd dirty`: the pages that the last call or command wrote."""

from __future__ import annotations

from typing import Any, Dict, Optional

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.names import exceptions
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import (
    last_call,
    sessions,
)
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import report_json, report_text
from gdb_uffd.protocol.messages_calls import LastReport
from gdb_uffd.protocol.model import CallReport


class DirtyCommand(Command):
    """Show the pages that the last call or command wrote.

    Usage: uffd dirty [-all] [-json] [-full]

      -all    everything written since the snapshot and kept
      -json   print one line, one JSON object
      -full   do not leave out lines of a long list

    Example:
        print push(7)
        uffd dirty
        uffd dirty -all"""

    name, usage = "dirty", "uffd dirty [-all] [-json] [-full]"
    options = ("all", "json", "full")

    def run(self, parsed: Parsed) -> None:
        """Ask for the report and print it."""
        self.nothing_else(parsed)
        session = sessions.current()
        dirty(session, parsed.has("all"), parsed.has("json"), parsed.has("full"))


def last_report(session: Session, which_all: bool) -> Optional[CallReport]:
    """The report of the last call or command; None when nothing has run."""
    session.calls.told()
    report = session.request(LastReport(which_all))
    last = last_call.find(session, report)
    if report is not None and last is not None:
        report.called = last.report.called
    return report


def dirty(session: Session, which_all: bool, as_json: bool, every_line: bool) -> None:
    """The pages of the last call, or all since the snapshot."""
    if as_json:
        say_json(dirty_object(session, which_all))
        return
    report = last_report(session, which_all)
    if report is None:
        say("no pages dirtied: nothing has run yet")
        return
    waited_ms = last_call.waited_ms(session, report)
    names = ReportSymbols(session, report, which_all)
    say(*report_text.report_lines(report, names, look(), waited_ms, every_line))
    if report.uncaught:
        say(f"  {exceptions.text(exceptions.described(session, report.uncaught))}")


def dirty_object(session: Session, which_all: bool) -> Dict[str, Any]:
    """The object of `uffd dirty -json` (docs/json.md)."""
    report = last_report(session, which_all)
    names = ReportSymbols(session, report, which_all)
    data = report_json.report_json(report or _nothing(session), names)
    told = exceptions.described(session, report.uncaught) if report is not None else None
    return {**data, "uncaught": exceptions.as_json(told)} if told is not None else data


def _nothing(session: Session) -> CallReport:
    return CallReport("all", True, 0, session.ready.total_pages, 0.0, "", [])
