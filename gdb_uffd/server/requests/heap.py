"""The requests of `uffd heap`."""

from __future__ import annotations

import time
from typing import Any

from gdb_uffd.protocol.heap import BlockReport, HeapReport
from gdb_uffd.protocol.messages_heap import AskHeapSince, Heap, HeapBlockAt, HeapSince
from gdb_uffd.protocol.model import FLAWS, UffdError
from gdb_uffd.replay.attribute import heap_report
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession

SECONDS = 3.0
"""How long earlier snapshots are looked through."""


def _own(session: StubSession) -> Any:
    session.diversion.commit_pending()
    return session.diversion


@request(Heap)
def heap(session: StubSession, asked: Heap) -> HeapReport:
    """All of malloc's heap."""
    told: HeapReport = heap_report.overview(_own(session), asked.blocks, asked.free)
    return told


@request(HeapBlockAt)
def heap_block(session: StubSession, asked: HeapBlockAt) -> BlockReport:
    """One block of it."""
    told: BlockReport = heap_report.block(_own(session), asked.address)
    return told


@request(AskHeapSince)
def heap_since(session: StubSession, asked: AskHeapSince) -> HeapSince:
    """Between which two snapshots the heap got one of the given flaws: by halving, for what a heap
    has it keeps."""
    wanted = set(asked.flaws)
    if not wanted or not wanted <= set(FLAWS):
        raise UffdError("flaws is not a list of what can be wrong with a heap")
    navigator = session.navigator
    deadline = time.monotonic() + SECONDS

    def broken(number: int) -> bool:
        with navigator.visit(number) as position:
            there: Any = position.diversion
            return bool(wanted & heap_report.flaws(there))

    here, first = navigator.position.number, 0
    if len(navigator.trace.snapshots) < 2 or not broken(here):
        return HeapSince(None, None, False)
    if not here or broken(first):
        return HeapSince(None, first, True)
    last = here
    while last - first > 1 and time.monotonic() < deadline:
        middle = (first + last) // 2
        try:
            found = broken(middle)
        except UffdError:  # a snapshot that is damaged itself
            break
        first, last = (first, middle) if found else (middle, last)
    return HeapSince(first, last, last - first == 1)
