"""The requests about calls: where one begins and ends, and what it did."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from gdb_uffd.protocol.ends import Uncaught, Wait
from gdb_uffd.protocol.messages import Done, Summary
from gdb_uffd.protocol.messages_calls import (
    AskBlocked,
    AskUncaught,
    BeginTransaction,
    CallBegin,
    CallEnd,
    CommitPending,
    EndTransaction,
    Interrupt,
    LastReport,
    Peek,
    Peeked,
    Reset,
    Undone,
)
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import libraries


def _is_repeated(session: StubSession, serial: Optional[int]) -> bool:
    """Whether the client, which did not see the answer, says the same once more."""
    repeated = serial is not None and serial == session.told
    session.told = serial
    return repeated


@request(CallBegin)
def call_begin(session: StubSession, asked: CallBegin) -> Done:
    """gdb is about to call a function."""
    if not _is_repeated(session, asked.serial):
        session.connection.tells_of_long = asked.progress
        session.called = asked.address
        session.diversion.call_begin(asked.address, asked.malloc)
        session.calls += 1
    return Done()


@request(CallEnd)
def call_end(session: StubSession, asked: CallEnd) -> Done:
    """It returned, or stopped half-way."""
    if not _is_repeated(session, asked.serial):
        session.calls = max(0, session.calls - 1)
        session.diversion.call_end()
    return Done()


@request(Interrupt, rerun=True)
def interrupt(session: StubSession, _asked: Interrupt) -> Done:
    """Ctrl-C came while gdb's side was at work."""
    session.connection.keep_interrupt()
    return Done()


@request(BeginTransaction)
def begin(session: StubSession, asked: BeginTransaction) -> Done:
    """`uffd call` begins."""
    session.diversion.begin()
    session.lists_checked = session.lists_read
    session.discards = asked.discards
    session.held = True
    session.connection.muted = asked.quiet
    if asked.cpu is not None:
        session.connection.share_cpu(asked.cpu)
    return Done()


@request(EndTransaction)
def end(session: StubSession, asked: EndTransaction) -> CallReport:
    """It is over."""
    session.forget_registers()
    session.calls = 0
    session.discards = session.held = session.connection.muted = False
    held = session.connection.take_held()
    session.connection.forget_interrupt()
    session.connection.share_cpu(None)
    report = session.diversion.end(asked.keep)
    report.streamed -= min(held, report.streamed)
    session.diversion.refine(report)
    return replace(report, libraries_stale=libraries.stale_if_read(session))


@request(CommitPending)
def commit(session: StubSession, _asked: CommitPending) -> Optional[Summary]:
    """Close an implicit transaction."""
    report = session.diversion.commit_pending()
    return None if report is None else Summary.of(report)


@request(LastReport)
def last_report(session: StubSession, asked: LastReport) -> Optional[CallReport]:
    """What was done last, or since the snapshot."""
    diversion = session.diversion
    if asked.all:
        return diversion.report_all()
    diversion.commit_pending()
    if diversion.last_report is not None:
        diversion.refine(diversion.last_report)
    return diversion.last_report


@request(Peek)
def peek(session: StubSession, asked: Peek) -> Peeked:
    """The last report, unless the client has it; what is under way is not closed."""
    report = session.diversion.last_report
    serial, shown = session.shown
    if report is not shown:
        serial += 1
        session.shown = (serial, report)
    if report is None or asked.known == serial:
        return Peeked(serial, None, report is not None)
    session.diversion.refine(report)
    return Peeked(serial, report, False)


@request(Reset)
def reset(session: StubSession, _asked: Reset) -> Undone:
    """Back to the snapshot."""
    session.forget_registers()
    session.connection.forget_interrupt()
    session.diversion.reset()
    session.navigator.position.ran = False
    return Undone(libraries.stale(session))


@request(AskBlocked)
def blocked(session: StubSession, _asked: AskBlocked) -> Optional[Wait]:
    """What the last stop waits for."""
    return session.diversion.blocked


@request(AskUncaught)
def uncaught(session: StubSession, _asked: AskUncaught) -> Optional[Uncaught]:
    """The exception that the last stop is about."""
    found: Optional[Uncaught] = session.diversion.thrown.last
    return found
