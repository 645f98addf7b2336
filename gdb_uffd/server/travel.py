"""The `quffd` packets that move between snapshots, and those that look at several of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Callable, Dict, Sequence

from gdb_uffd.model import PAGE_SIZE, to_json
from gdb_uffd.server.arguments import Arguments, boolean, integer, path
from gdb_uffd.server.journey import Move
from gdb_uffd.server.session import Facts, Session
from gdb_uffd.trace.source import UNAVAILABLE, Segment


def total_pages(segments: Sequence[Segment]) -> int:
    """Pages that can be had, zeros included."""
    return sum(s.end - s.start for s in segments if s.kind != UNAVAILABLE) // PAGE_SIZE


def facts_now(session: Session) -> Facts:
    """What the ready line told, for the snapshot that is shown now."""
    snapshot = session.diversion.snapshot
    return replace(
        session.facts,
        executable=snapshot.executable,
        threads=len(snapshot.threads),
        total_pages=total_pages(snapshot.segments),
        inferior_pid=snapshot.pid,
        signal=snapshot.threads[0].signal,
        snapshot=session.journey.place.number,
    )


def _snapshots(session: Session, _arguments: Arguments) -> Any:
    journey = session.journey
    return {"snapshots": to_json(list(journey.trace.snapshots)), "current": journey.place.number}


def _where(session: Session, _arguments: Arguments) -> Any:
    return _place(session)


def _place(session: Session) -> Dict[str, Any]:
    """The present snapshot, for gdb's side to follow."""
    journey, thread = session.journey, session.diversion.snapshot.threads[0]
    return {
        "number": journey.place.number,
        "tid": thread.tid,
        "signal": thread.signal,
        "ran": journey.place.ran,
    }


def _moved(session: Session, move: Move, now: bool) -> Any:
    """Make the prepared move if it can be made at once; what it changes either way."""
    if now and not move.reconnect:
        session.journey.arrive()
        session.arrive()
    return {**asdict(move), **_place(session), "number": move.number}


def _goto(session: Session, arguments: Arguments) -> Any:
    move = session.journey.prepare(integer(arguments, "number"))
    return _moved(session, move, boolean(arguments, "now"))


def _away(session: Session, arguments: Arguments) -> Any:
    session.diversion.commit_pending()
    session.journey.place.thread = session.general
    session.journey.set_aside()
    cpu = arguments.get("cpu")
    if isinstance(cpu, int):
        session.connection.share_cpu(cpu)
    return {}


def _back(session: Session, _arguments: Arguments) -> Any:
    session.connection.share_cpu(None)
    return _moved(session, session.journey.prepare_return(), True)


def _stay(session: Session, _arguments: Arguments) -> Any:
    session.journey.cancel()
    return {}


def _listen(session: Session, arguments: Arguments) -> Any:
    session.journey.listen(path(arguments))
    return {}


VERBS: Dict[str, Callable[[Session, Arguments], Any]] = {
    "snapshots": _snapshots,
    "where": _where,
    "goto": _goto,
    "away": _away,
    "back": _back,
    "stay": _stay,
    "listen": _listen,
}
