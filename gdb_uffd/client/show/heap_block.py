"""One block of the heap as `uffd heap ADDRESS` tells it.  No gdb here."""

from __future__ import annotations

import os
from typing import List, Optional, Protocol, Sequence

from gdb_uffd.client.show import heap_words
from gdb_uffd.client.show.heap_words import Thread
from gdb_uffd.client.show.table import listed
from gdb_uffd.client.show.text import Look, number
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.heap import BlockReport
from gdb_uffd.protocol.model import HeapBlock

WORDS_SHOWN = 16
"""Pointers that a text shows."""


class Name(Protocol):
    """A block or a word as the program names it (heap_names.Named)."""

    @property
    def type(self) -> str:
        """What it seems to hold."""
        ...

    def full(self) -> str:
        """The name with its place."""
        ...


@dataclass(frozen=True)
class Text:
    """What there is to tell: the server's report, and the names that go with it."""

    report: BlockReport
    named: Name
    before: Name
    after: Name
    words: Sequence[Name]
    freed: Sequence[Name]
    notes: Sequence[List[str]]
    place: str = ""  # of an address in no block: what lies there


def lines(text: Text, thread: Thread, look: Look) -> List[str]:
    """The whole text."""
    told = _lines(text, thread, look)
    return [part for line in told for part in look.wrapped(line)]


def _lines(text: Text, thread: Thread, look: Look) -> List[str]:
    report, block = text.report, text.report.block
    if block is None:
        return _nowhere(text, look)
    offset = report.address - block.start
    out = [_head(report, block, thread)]
    if offset:
        out.append(f"  {report.address:#x} is at {offset:+#x} of it")
    out += _row("type", text.named.type)
    if block.state in ("used", "mapped"):
        out += _row("held by", text.named.full() or _nobody(report))
    out += _row("before", _neighbour(report.before, text.before, thread))
    out += _row("after", _neighbour(report.after, text.after, thread))
    out += _pointers(text, block.state == "free", look)
    for word, ref in zip(text.freed[:WORDS_SHOWN], report.freed):
        if ref.block is not None:
            where = heap_words.list_text(ref.block.list, thread)
            freed = f"{word.full()} points into a freed block, {ref.block.start:#x}"
            out.append(f"  {freed} ({number(ref.block.size)} B, in {where})")
    if report.damage:
        out += heap_words.damage_lines(report.damage, len(report.damage), text.notes, thread)
    return out


def _row(name: str, text: str) -> List[str]:
    return [f"  {name:<8} {text}"] if text else []


def _nobody(report: BlockReport) -> str:
    if report.complete:
        return "nothing points to it: it is leaked"
    return "no pointer to it was found; not all memory could be searched"


def _head(report: BlockReport, block: HeapBlock, thread: Thread) -> str:
    states = {
        "used": "in use",
        "mapped": "in use, with a mapping of its own",
        "top": "the top of its heap: not allocated",
        "fence": "what ends a heap that does not go on",
        "unknown": "in use or free: what stands behind it is damaged",
    }
    state = states.get(block.state, "free")
    if block.list is not None:
        state = f"free, in {heap_words.list_text(block.list, thread)}"
        if block.start in block.list.first:
            state += f", {_ordinal(block.list.first.index(block.start))} of {block.list.blocks}"
    return f"{block.start:#x}: {number(block.size)} B, {state}"


def _ordinal(index: int) -> str:
    return ("first", "second", "third")[index] if index < 3 else f"{index + 1}th"


def _neighbour(block: Optional[HeapBlock], named: Name, thread: Thread) -> str:
    if block is None:
        return ""
    start, size, state = heap_words.block_row(block, thread)
    name = named.full()
    return f"{start}  {size}, {state}" + (f": {name}" if name else "")


def _pointers(text: Text, even_one: bool, look: Look) -> List[str]:
    """Who points to it: of a block that is in use only where there are several."""
    report = text.report
    names = list(dict.fromkeys(word.full() for word in text.words))
    count = len(names) + report.more_references
    free = report.block is not None and report.block.state == "free"
    if not names or (not even_one and count < 2):
        return [] if not free or report.complete else ["  not all memory could be searched"]
    shown = names[:WORDS_SHOWN]
    if count > len(shown):
        shown.append(f"… {number(count - len(shown))} more")
    head = "still pointed to by " if free else "pointed to by "
    return listed(f"  {head}", shown, look)


def _nowhere(text: Text, look: Look) -> List[str]:
    report, allocator = text.report, text.report.allocator
    where = {"data": "data", "tls": "thread-locals", "stack": "a stack"}.get(report.kind, "")
    if not report.is_mapped:
        return [f"{report.address:#x} is not mapped"]
    if where:
        name = f" of {os.path.basename(report.mapping)}" if report.kind == "data" else ""
        ends = ";" if ":" in text.place else ","
        return [
            f"{report.address:#x} is in {text.place or where + name}{ends} in no block of the heap"
        ]
    if allocator is not None and allocator.name not in ("glibc", ""):
        return [
            f"{report.address:#x}: {allocator.name}'s blocks are not read",
            *_pointers(text, True, look),
            f"  its size, asked of it: `uffd call (long) malloc_usable_size({report.address:#x})`",
        ]
    if report.damage:
        return [
            f"{report.address:#x} is in no block that could be read: `uffd heap` tells of damage"
        ]
    return [f"{report.address:#x} is in no block of the heap"]
