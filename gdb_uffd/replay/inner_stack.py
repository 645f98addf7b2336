"""A stack that lies in a variable or in a block of malloc's: a signal handler's (sigaltstack(2)), a
coroutine's (makecontext(3)).  What a call leaves on it below the stack pointer is nobody's, as on
any other stack.

Other fields of the variable or block may lie below the stack: only pages count that frames of the
call are known to have reached."""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence

from gdb_uffd.protocol.model import CallReport, DirtyPage, DirtyRange, page_floor
from gdb_uffd.replay.attribute.owners import part
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.symbols import variable_around


def settle(report: CallReport, modules: Sequence[Module], floor: int, red_zone: int) -> None:
    """Changes `report`, whose blocks are known.  `floor`: what the thread that ran had in use lay
    at and above it; `red_zone`: the architecture's."""
    pages = [p for p in report.pages if p.kind in ("data", "heap") and p.start < floor]
    if not pages:
        return
    start = _start(report, modules, floor)
    if start is None:
        return
    start = max(start, page_floor(_lowest(pages, start, floor, red_zone)))
    for page in pages:
        if page.end <= start:
            continue
        runs = [piece for run in page.ranges for piece in _cut(run, start, floor, report.tid)]
        inside = start <= page.start and page.end <= floor
        if inside or (not page.more_ranges and all(run.role == "scratch" for run in runs)):
            page.kind, page.mapping, page.thread = "stack", "[stack]", report.tid
        page.ranges = runs


def _start(report: CallReport, modules: Sequence[Module], floor: int) -> Optional[int]:
    """Where the variable or the block begins that holds the last byte below `floor`."""
    at = floor - 1
    for block in report.blocks:
        if block.state == "live" and block.start <= at < block.start + block.size:
            return block.start
    for module in modules:
        found = variable_around(module, at)
        if found is not None:
            return found[0]
    return None


def _lowest(pages: Sequence[DirtyPage], start: int, floor: int, red_zone: int) -> int:
    """The lowest stack pointer with which something was written to the stack."""
    firsts = [page.first_write for page in pages if page.end > start]
    return min(
        (f.sp for f in firsts if f is not None and start <= f.sp <= f.address + red_zone <= floor),
        default=floor,
    )


def _cut(run: DirtyRange, start: int, floor: int, tid: int) -> List[DirtyRange]:
    """`run` in up to three pieces; the one on the stack says so."""
    end = run.address + len(run.before)
    cuts = [run.address, *(at for at in (start, floor) if run.address < at < end), end]
    pieces = [part(run, low, high, run.role) for low, high in zip(cuts, cuts[1:])]
    return [
        dataclasses.replace(piece, kind="stack", thread=tid, role="scratch")
        if start <= piece.address < floor
        else piece
        for piece in pieces
        if piece is not None
    ]
