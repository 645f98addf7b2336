"""The `quffd` packets of `uffd heap` (docs/protocol.md)."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict

from gdb_uffd.protocol.heap import to_json
from gdb_uffd.protocol.model import FLAWS, UffdError
from gdb_uffd.server.requests.arguments import Arguments, address, boolean, integer
from gdb_uffd.server.session import StubSession

BLOCKS_MAX = 100_000
"""Blocks that one answer lists."""

SECONDS = 3.0
"""How long earlier snapshots are looked through."""


def _reports() -> Any:
    from gdb_uffd.replay.attribute import heap_report  # native code, which may lack, and takes time

    return heap_report


def _own(session: StubSession) -> Any:
    session.diversion.commit_pending()
    return session.diversion


def _heap(session: StubSession, arguments: Arguments) -> Any:
    blocks = integer(arguments, "blocks") if "blocks" in arguments else 0
    if not 0 <= blocks <= BLOCKS_MAX:
        raise UffdError(f"blocks is not a number from 0 to {BLOCKS_MAX:,}")
    return to_json(_reports().overview(_own(session), blocks, boolean(arguments, "free")))


def _block(session: StubSession, arguments: Arguments) -> Any:
    return to_json(_reports().block(_own(session), address(arguments)))


def _since(session: StubSession, arguments: Arguments) -> Any:
    """Between which two snapshots the heap got one of the given flaws: by halving, for what a heap
    has it keeps."""
    wanted = arguments.get("flaws")
    if not isinstance(wanted, list) or not wanted or any(each not in FLAWS for each in wanted):
        raise UffdError("flaws is not a list of what can be wrong with a heap")
    journey = session.journey
    deadline = time.monotonic() + SECONDS

    def broken(number: int) -> bool:
        with journey.visit(number) as place:
            return bool(set(wanted) & _reports().flaws(place.diversion))

    here, first = journey.place.number, 0
    if len(journey.trace.snapshots) < 2 or not broken(here):
        return {"whole": None, "broken": None, "exact": False}
    if not here or broken(first):
        return {"whole": None, "broken": first, "exact": True}
    last = here
    while last - first > 1 and time.monotonic() < deadline:
        middle = (first + last) // 2
        try:
            found = broken(middle)
        except UffdError:  # a snapshot that is damaged itself
            break
        first, last = (first, middle) if found else (middle, last)
    return {"whole": first, "broken": last, "exact": last - first == 1}


VERBS: Dict[str, Callable[[StubSession, Arguments], Any]] = {
    "heap": _heap,
    "heap-block": _block,
    "heap-since": _since,
}
