"""The `quffd` packets that move between snapshots, and those that look at several of them."""

from __future__ import annotations

import zlib
from dataclasses import asdict, replace
from typing import Any, Callable, Dict, Sequence

from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    PROT_EXEC,
    Mapping,
    page_floor,
)
from gdb_uffd.server.navigator import Move
from gdb_uffd.server.requests import export
from gdb_uffd.server.requests.arguments import Arguments, address, boolean, integer, path
from gdb_uffd.server.session import ReadyFacts, StubSession
from gdb_uffd.server.stub import libraries
from gdb_uffd.trace.source import UNAVAILABLE, Segment


def total_pages(segments: Sequence[Segment]) -> int:
    """Pages that can be had, zeros included."""
    return sum(s.end - s.start for s in segments if s.kind != UNAVAILABLE) // PAGE_SIZE


def facts_now(session: StubSession) -> ReadyFacts:
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
        brought=session.journey.brought,
    )


def _snapshots(session: StubSession, _arguments: Arguments) -> Any:
    journey = session.journey
    return {"snapshots": to_json(list(journey.trace.snapshots)), "current": journey.place.number}


def _where(session: StubSession, _arguments: Arguments) -> Any:
    return _place(session)


def _place(session: StubSession) -> Dict[str, Any]:
    """The present snapshot, for gdb's side to follow."""
    journey, snapshot = session.journey, session.diversion.snapshot
    first = snapshot.threads[0]
    return {
        "number": journey.place.number,
        "moves": journey.moves,
        "time_ns": journey.info.time_ns,
        "label": journey.info.label,
        "tid": first.tid,
        "signal": first.signal,
        "sysroot": journey.sysroot,
        "brought": journey.brought,
        "libraries": _libraries(snapshot.mappings),
    }


def _libraries(mappings: Sequence[Mapping]) -> int:
    """A number that is another where files' code is mapped otherwise."""
    code = [(m.start, m.name) for m in mappings if m.prot & PROT_EXEC and m.name[:1] == "/"]
    return zlib.crc32(repr(code).encode("utf-8", "surrogateescape"))


def _moved(session: StubSession, move: Move, now: bool) -> Any:
    """Make the prepared move if it can be made at once; what it changes either way."""
    stale: Dict[str, bool] = {}
    if now and not move.reconnect:
        session.move()
        stale = libraries.stale_if_read(session)
    return {**asdict(move), **_place(session), "number": move.number, **stale}


def _goto(session: StubSession, arguments: Arguments) -> Any:
    number, now = integer(arguments, "number"), boolean(arguments, "now")
    journey = session.journey
    if not boolean(arguments, "tell"):
        return _moved(session, journey.prepare(number), now)
    changed = journey.changed_here()
    return {**_moved(session, journey.prepare(number), now), "forgotten": changed}


def _away(session: StubSession, arguments: Arguments) -> Any:
    session.diversion.commit_pending()
    session.journey.place.thread = session.general
    session.journey.set_aside()
    session.lists_checked = -1  # what is kept here is not there
    session.connection.away = True
    cpu = arguments.get("cpu")
    if isinstance(cpu, int):
        session.connection.share_cpu(cpu)
    return {}


def _back(session: StubSession, _arguments: Arguments) -> Any:
    session.connection.share_cpu(None)
    session.connection.away = False
    # What is kept there may have other libraries than were recorded.
    return {**_moved(session, session.journey.prepare_return(), True), **libraries.stale(session)}


def _stay(session: StubSession, _arguments: Arguments) -> Any:
    session.journey.cancel()
    return {}


def _listen(session: StubSession, arguments: Arguments) -> Any:
    session.journey.listen(path(arguments))
    return {}


def _comparing() -> Any:
    from gdb_uffd.server.requests import changes  # native code, which may lack

    return changes


def _changes(session: StubSession, arguments: Arguments) -> Any:
    trace = session.journey.trace
    return _comparing().compare(trace, integer(arguments, "a"), integer(arguments, "b"))


def _changes_image(session: StubSession, arguments: Arguments) -> Any:
    a, b = integer(arguments, "a"), integer(arguments, "b")
    return _comparing().image(session.journey.trace, a, b, page_floor(address(arguments)))


def _export(session: StubSession, arguments: Arguments) -> Any:
    session.diversion.commit_pending()
    return export.export(session, path(arguments))


VERBS: Dict[str, Callable[[StubSession, Arguments], Any]] = {
    "snapshots": _snapshots,
    "where": _where,
    "goto": _goto,
    "away": _away,
    "back": _back,
    "stay": _stay,
    "listen": _listen,
    "changes": _changes,
    "changes-image": _changes_image,
    "export": _export,
}
