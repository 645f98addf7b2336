"""What goes with damage in malloc's heap: the block in front by name, and since when."""

from __future__ import annotations

import contextlib
from typing import Iterator, List, Sequence

from gdb_uffd.client.names import search_roots
from gdb_uffd.client.names.block_paths import Paths, Root
from gdb_uffd.client.names.heap_names import HeapNames, frame_pcs
from gdb_uffd.client.names.shapes import Shapes
from gdb_uffd.client.names.variables import no_calls
from gdb_uffd.client.session.asking import FAILURES, captured
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import heap_words
from gdb_uffd.protocol.messages_heap import AskHeapSince, HeapBlockAt
from gdb_uffd.protocol.model import Block, CallReport, Damage, HeapBlock, UffdError

WRITTEN = ("link-unaligned", "link-unreadable", "link-loop", "link-back", "tcache-key")
"""Damage inside of a freed block: whoever still points to it may have written there."""

LOST = ("no-heap", "no-arena", "no-thread-locals", "too-many")
"""What is no damage: the heap is not understood."""


def damage_notes(session: Session, damage: Damage) -> List[str]:
    """What goes with a fault: the block in front by name, and since when it is there."""
    notes: List[str] = []
    if damage.block and damage.what in WRITTEN:
        notes.append(heap_words.holders_text(_holders(session, damage.block)))
    elif damage.before is not None:
        name = ""
        if damage.before.state in ("used", "unknown"):
            name = _name_of(session, damage.before.start)
        notes.append(heap_words.before_text(damage, name))
    notes.append(since(session, [damage.what]))
    return [note for note in notes if note]


def _holders(session: Session, start: int) -> List[str]:
    """The pointers to a block, by name."""
    told, names = session.request(HeapBlockAt(start)), []
    tool = HeapNames(session)
    for ref in told.references[: heap_words.HOLDERS_SHOWN]:
        names.append(tool.word(ref).full())
    return list(dict.fromkeys(names))


def _name_of(session: Session, start: int) -> str:
    told = session.request(HeapBlockAt(start))
    if told.block is None or told.block.start != start:
        return ""
    return HeapNames(session).of(told.block, told.chain).full()


def since(session: Session, flaws: Sequence[str]) -> str:
    """In which snapshot a heap first had one of these flaws; "" where none tells."""
    if session.ready.snapshots < 2:
        return ""
    key = (session.position.snapshot, *sorted(flaws))
    if key not in session.heap_since:
        told = session.request(AskHeapSince(list(flaws)))
        session.heap_since[key] = (told.whole, told.broken, told.exact)
    return heap_words.since_text(*session.heap_since[key])


def tell(session: Session, report: CallReport) -> None:
    """Fill in `report.heap_notes`: of the heap that a report could not read."""
    damage = report.heap_trouble
    if damage is None or damage.what in LOST or report.heap_notes:
        return
    notes = []
    if damage.before is not None:
        undone = damage.state == "after" and not report.kept
        name = _after(session, damage.before) if undone else _name_of(session, damage.before.start)
        notes.append(heap_words.before_text(damage, name))
    if damage.state == "after":
        notes.append("it was whole before: this call did it")
    else:
        with contextlib.suppress(UffdError):
            notes.append(since(session, [damage.what]))
    report.heap_notes = [note for note in notes if note]


def _after(session: Session, block: HeapBlock) -> str:
    """The name of a block in the memory that the last report left, and that is undone."""
    wanted = [Block(block.start, block.size, "live")]

    def search() -> str:
        for roots in _beginnings(session):
            paths = Paths(session, False, session.kept(Shapes))
            paths.search(roots, wanted, True)
            found = paths.found.get(block.start)
            if found is not None:
                return found.place.text if found.place.pointer else f"&{found.place.text}"
        return ""

    with no_calls(), contextlib.suppress(*FAILURES, UffdError):
        return captured(search)
    return ""


def _beginnings(session: Session) -> Iterator[List[Root]]:
    yield list(search_roots.of_call(session.calls.context, session.kept(Shapes)))
    pcs = [session.calls.last] if session.calls.last else []
    yield list(search_roots.of_files([*pcs, *frame_pcs()]))
    yield list(search_roots.of_frames())
