"""The requests of `uffd why`, `uffd trace` and `uffd report`: the last run once more."""

from __future__ import annotations

from typing import Any, Union

from gdb_uffd.protocol.messages import Done
from gdb_uffd.protocol.messages_rerun import (
    Fed,
    FedRanges,
    PageTouch,
    RerunEnd,
    RerunStart,
    SeenWrite,
    StillRunning,
    Touched,
    TraceBegin,
    TraceDrop,
    TraceEnd,
    Why,
    WhyEnd,
    WhyNext,
)
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.rerun.first_touch import Tracing, fed_ranges
from gdb_uffd.replay.rerun.play import Rerun
from gdb_uffd.replay.rerun.writes import Running, Write
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession


def _real(session: StubSession) -> Any:
    """The session's diversion, if it is one that can be copied."""
    session.step_back()  # a client that went away in the middle, say
    if not isinstance(session.diversion, Diversion):
        raise UffdError("this target cannot run a call again")
    return session.diversion


@request(Why, rerun=True)
def why(session: StubSession, asked: Why) -> RerunStart:
    """Get ready to run it again."""
    real = _real(session)
    work = Rerun(real, asked.address, asked.length, asked.first, asked.limit)
    session.step_aside(work, work.halt)
    if asked.cpu is not None:
        session.connection.share_cpu(asked.cpu)
    last = work.last
    saved = last.saved.changed.get(last.tid)
    before = saved if saved is not None else real.snapshot.thread(last.tid).registers
    return RerunStart(
        tid=last.tid,
        sp=before.sp,
        kind=last.report.kind,
        kept=last.report.kept,
        functions=list(last.log.functions),
        by="write-protection" if work.pages else "debug registers",
        kernel_lost=last.kernel_lost,
    )


@request(WhyNext, rerun=True)
def why_next(session: StubSession, _asked: WhyNext) -> Union[StillRunning, SeenWrite, RerunEnd]:
    """Run it until something happens."""

    work = session.aside.work if session.aside is not None else None
    if not isinstance(work, Rerun):
        raise UffdError("nothing is being run again")
    session.forget_registers()
    event = work.next()
    if isinstance(event, Running):
        return StillRunning()
    if isinstance(event, Write):
        return SeenWrite(
            event.by, event.low, event.high, event.window, event.before, event.after, event.pc,
            event.exact, event.sp, system_call_name(event.call),
        )  # fmt: skip
    return RerunEnd(
        event.writes, work.gave_up, round(event.seconds, 6), event.differs, event.compared,
        event.why, event.cut,
    )  # fmt: skip


def system_call_name(number: int) -> str:
    """ "read", "system call 999" for one without a known name, "" for none."""
    return syscalls.name(number) if number >= 0 else ""


@request(WhyEnd, rerun=True)
def why_end(session: StubSession, _asked: WhyEnd) -> Done:
    """The session's own process answers again."""
    session.step_back()
    return Done()


@request(TraceBegin, rerun=True)
def trace_begin(session: StubSession, _asked: TraceBegin) -> Done:
    """A process without any page answers."""
    real = _real(session)
    session.step_aside(Tracing(real))
    return Done()


@request(TraceEnd)
def trace_end(session: StubSession, _asked: TraceEnd) -> Touched:
    """What it touched."""
    work = session.aside.work if session.aside is not None else None
    if not isinstance(work, Tracing):
        raise UffdError("nothing is being traced")
    touched, missed = work.touched, work.missed
    session.step_back()
    return Touched(
        [
            PageTouch(
                t.start, t.end, t.access, t.written, t.fed, t.kind, t.mapping, t.thread, t.address,
                t.pc, t.sp, t.tid, t.callers, system_call_name(t.call),
            )
            for t in touched
        ],
        missed,
    )  # fmt: skip


@request(TraceDrop, rerun=True)
def trace_drop(session: StubSession, _asked: TraceDrop) -> Done:
    """The session's own process answers again."""
    session.step_back()
    return Done()


@request(Fed, rerun=True)
def fed(session: StubSession, _asked: Fed) -> FedRanges:
    """What the last run had of the recording."""
    real = _real(session)
    real.commit_pending()
    if real.last_report is None:
        return FedRanges([], True)
    ranges, complete = fed_ranges(real, real.last_report)
    return FedRanges(ranges, complete)
