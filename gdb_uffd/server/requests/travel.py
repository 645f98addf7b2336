"""The requests that move between snapshots, and those that look at several of them."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any, Dict, Optional, Sequence

from gdb_uffd.protocol.messages import Done
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.messages_travel import (
    AskPosition,
    Back,
    Changes,
    ChangesImage,
    Differences,
    Excursion,
    Export,
    Exported,
    Goto,
    Listen,
    ListSnapshots,
    Moved,
    SnapshotList,
    Stay,
    TracePosition,
)
from gdb_uffd.protocol.model import PROT_EXEC, Mapping, page_floor
from gdb_uffd.server.navigator import Move
from gdb_uffd.server.requests import changes as comparison
from gdb_uffd.server.requests import export as core_export
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import libraries


@request(ListSnapshots)
def snapshots(session: StubSession, _asked: ListSnapshots) -> SnapshotList:
    """Those of the trace."""
    navigator = session.navigator
    return SnapshotList(list(navigator.trace.snapshots), navigator.position.number)


@request(AskPosition)
def position(session: StubSession, _asked: AskPosition) -> TracePosition:
    """The present snapshot, for gdb's side to follow."""
    return TracePosition(**_position(session))


def _position(session: StubSession) -> Dict[str, Any]:
    navigator, snapshot = session.navigator, session.diversion.snapshot
    first = snapshot.threads[0]
    return {
        "number": navigator.position.number,
        "moves": navigator.moves,
        "time_ns": navigator.info.time_ns,
        "label": navigator.info.label,
        "tid": first.tid,
        "signal": first.signal,
        "sysroot": navigator.sysroot,
        "brought": navigator.brought,
        "libraries": _libraries(snapshot.mappings),
    }


def _libraries(mappings: Sequence[Mapping]) -> int:
    """A number that is another where files' code is mapped otherwise."""
    code = [(m.start, m.name) for m in mappings if m.prot & PROT_EXEC and m.name[:1] == "/"]
    return zlib.crc32(repr(code).encode("utf-8", "surrogateescape"))


def _moved(session: StubSession, move: Move, now: bool, forgotten: Optional[int] = None) -> Moved:
    """Make the prepared move if it can be made at once; what it changes either way."""
    stale = False
    if now and not move.reconnect:
        session.move()
        stale = libraries.stale_if_read(session)
    here = {**_position(session), "number": move.number}
    return Moved(
        **here,
        threads_changed=move.threads_changed,
        reconnect=move.reconnect,
        libraries_stale=stale,
        forgotten=forgotten,
    )


@request(Goto)
def goto(session: StubSession, asked: Goto) -> Moved:
    """Open another snapshot, and perhaps go there."""
    navigator = session.navigator
    changed = navigator.changed_here() if asked.tell else None
    return _moved(session, navigator.prepare(asked.number), asked.now, forgotten=changed)


@request(Excursion)
def excursion(session: StubSession, asked: Excursion) -> Done:
    """An excursion begins."""
    session.diversion.commit_pending()
    session.navigator.position.thread = session.general
    session.navigator.set_aside()
    session.lists_checked = -1  # what is kept here is not there
    session.connection.excursion = True
    if asked.cpu is not None:
        session.connection.share_cpu(asked.cpu)
    return Done()


@request(Back)
def back(session: StubSession, _asked: Back) -> Moved:
    """It ends."""
    session.connection.share_cpu(None)
    session.connection.excursion = False
    moved = _moved(session, session.navigator.prepare_return(), True)
    # What is kept there may have other libraries than were recorded.
    return replace(moved, libraries_stale=libraries.stale(session) or moved.libraries_stale)


@request(Stay)
def stay(session: StubSession, _asked: Stay) -> Done:
    """Forget the prepared move."""
    session.navigator.cancel()
    return Done()


@request(Listen)
def listen(session: StubSession, asked: Listen) -> Done:
    """Make the prepared move with the next connection."""
    session.navigator.listen(asked.path)
    return Done()


@request(Changes)
def changes(session: StubSession, asked: Changes) -> Differences:
    """What differs between two snapshots."""
    found: Differences = comparison.compare(session.navigator.trace, asked.a, asked.b)
    return found


@request(ChangesImage)
def changes_image(session: StubSession, asked: ChangesImage) -> Optional[PageImage]:
    """A page in both."""
    start = page_floor(asked.address)
    found: Optional[PageImage] = comparison.image(session.navigator.trace, asked.a, asked.b, start)
    return found


@request(Export)
def export(session: StubSession, asked: Export) -> Exported:
    """The process as it is now, as a core file."""
    session.diversion.commit_pending()
    return core_export.export(session, asked.path)
