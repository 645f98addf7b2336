"""The `quffd` packets of `uffd why`, `uffd trace` and `uffd report` (docs/protocol.md)."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Union, cast

from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.interface import RunnableSnapshot
from gdb_uffd.server.session import Aside, StubSession

Arguments = Dict[str, Any]

LIMIT_MAX = 1_000_000
"""Writes that one `uffd why` may be asked to list."""


class _Standing:
    """The clone as the client sees it between two `quffd.why-next`.

    Should its process run, any other packet stops it first; there is no way to go on then."""

    def __init__(self, rerun: Any) -> None:
        self._rerun = rerun

    def __getattr__(self, name: str) -> Any:
        self._rerun.halt()
        return getattr(self._rerun.diversion, name)


def _real(session: StubSession) -> Any:
    """The session's diversion, if it is one that can be copied."""
    from gdb_uffd.replay.diversion import Diversion as Real

    session.step_back()  # a client that went away in the middle, say
    if not isinstance(session.diversion, Real):
        raise UffdError("this target cannot run a call again")
    return session.diversion


def _step_aside(session: StubSession, work: Any, seen: Union[RunnableSnapshot, _Standing]) -> None:
    session.aside = Aside(session.diversion, work)
    session.diversion = cast(RunnableSnapshot, seen)
    session.forget_registers()


def _number(arguments: Arguments, name: str, most: int) -> int:
    value = arguments.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise UffdError(f"{name} is not a number from 0 to {most}")
    return value


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise UffdError(f"{name} is not true or false")
    return value


def _address(arguments: Arguments) -> int:
    value = arguments.get("address", "0x0")
    if not isinstance(value, str) or not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", value):
        raise UffdError('address is not a hex string such as "0x1000"')
    return int(value, 16)


def _why(session: StubSession, arguments: Arguments) -> Any:
    real = _real(session)
    from gdb_uffd.replay.rerun.play import Rerun

    work = Rerun(
        real,
        _address(arguments),
        _number(arguments, "length", 1 << 40),
        _flag(arguments, "first"),
        _number(arguments, "limit", LIMIT_MAX),
    )
    _step_aside(session, work, _Standing(work))
    cpu = arguments.get("cpu")
    if isinstance(cpu, int):
        session.connection.share_cpu(cpu)
    last = work.last
    saved = last.saved.changed.get(last.tid)
    before = saved if saved is not None else real.snapshot.thread(last.tid).registers
    notes = []
    if last.kernel_lost:
        notes.append("what kept calls had opened, handled or timed is not there in the second run")
    return {
        "tid": last.tid,
        "sp": hex(before.sp),
        "kind": last.report.kind,
        "kept": last.report.kept,
        "functions": [hex(address) for address in last.log.functions],
        "by": "write-protection" if work.pages else "debug registers",
        "notes": notes,
    }


def _why_next(session: StubSession, _arguments: Arguments) -> Any:
    from gdb_uffd.replay.rerun.play import Rerun
    from gdb_uffd.replay.rerun.writes import Running, Write

    work = session.aside.work if session.aside is not None else None
    if not isinstance(work, Rerun):
        raise UffdError("nothing is being run again")
    session.forget_registers()
    event = work.next()
    if isinstance(event, Running):
        return {"event": "running"}
    if isinstance(event, Write):
        return {
            "event": "write",
            "by": event.by,
            "low": hex(event.low),
            "high": hex(event.high),
            "window": hex(event.window),
            "before": event.before.hex(),
            "after": event.after.hex(),
            "pc": hex(event.pc),
            "exact": event.exact,
            "sp": hex(event.sp),
            "system_call": system_call_name(event.call),
        }
    return {
        "event": "end",
        "writes": event.writes,
        "more": work.gave_up,
        "seconds": round(event.seconds, 6),
        "differs": event.differs,
        "compared": event.compared,
        "why": event.why,
        "cut": event.cut,
    }


def system_call_name(number: int) -> str:
    """ "read", "system call 999" for one without a known name, "" for none."""
    from gdb_uffd.replay.policy.syscalls import name

    return name(number) if number >= 0 else ""


def _end(session: StubSession, _arguments: Arguments) -> Any:
    session.step_back()
    return {}


def _trace_begin(session: StubSession, _arguments: Arguments) -> Any:
    real = _real(session)
    from gdb_uffd.replay.rerun.first_touch import Tracing

    work = Tracing(real)
    _step_aside(session, work, work.diversion)
    return {}


def _trace_end(session: StubSession, _arguments: Arguments) -> Any:
    from gdb_uffd.replay.rerun.first_touch import Tracing

    work = session.aside.work if session.aside is not None else None
    if not isinstance(work, Tracing):
        raise UffdError("nothing is being traced")
    touched, missed = work.touched, work.missed
    session.step_back()
    return {
        "touched": [
            {
                "start": hex(t.start),
                "end": hex(t.end),
                "access": t.access,
                "written": t.written,
                "fed": t.fed,
                "kind": t.kind,
                "mapping": t.mapping,
                "thread": t.thread,
                "address": hex(t.address),
                "pc": hex(t.pc),
                "sp": hex(t.sp),
                "tid": t.tid,
                "callers": [hex(address) for address in t.callers],
                "system_call": system_call_name(t.call),
            }
            for t in touched
        ],
        "missed": missed,
    }


def _fed(session: StubSession, _arguments: Arguments) -> Any:
    real = _real(session)
    from gdb_uffd.replay.rerun.first_touch import fed_ranges

    real.commit_pending()
    if real.last_report is None:
        return {"ranges": [], "complete": True}
    ranges, complete = fed_ranges(real, real.last_report)
    return {"ranges": [[hex(a), hex(b)] for a, b in ranges], "complete": complete}


def _peek(session: StubSession, arguments: Arguments) -> Any:
    """The last report, unless the client has it; what is under way is not closed."""
    report = session.diversion.last_report
    serial, shown = session.shown
    if report is not shown:
        serial += 1
        session.shown = (serial, report)
    if report is None or arguments.get("known") == serial:
        return {"serial": serial, "report": None, "known": report is not None}
    session.diversion.refine(report)
    return {"serial": serial, "report": to_json(report), "known": False}


VERBS: Dict[str, Callable[[StubSession, Arguments], Any]] = {
    "why": _why,
    "why-next": _why_next,
    "why-end": _end,
    "trace-begin": _trace_begin,
    "trace-end": _trace_end,
    "trace-drop": _end,
    "fed": _fed,
    "peek": _peek,
}
