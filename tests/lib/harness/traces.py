"""Traces without a recorder: of cores that gdb wrote of a live process, with what that process said
at each; or of one core, with a few pages written anew at each further snapshot."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, page_floor
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.core.info import core_info
from gdb_uffd.trace.store import importing
from gdb_uffd.trace.store.write import TraceWriter
from harness import gdbs


@dataclass
class Made:
    """A trace, and what the live process said at each snapshot: command -> its output."""

    path: Path
    said: List[Dict[str, str]] = field(default_factory=list)


def of_live(
    folder: Path, command: Sequence[str], where: str, labels: Sequence[str], asked: Sequence[str]
) -> Made:
    """Run `command` under native gdb 18.1 with breakpoints at the places of `where`; a snapshot at
    each of the first stops, as many as there are `labels`, and what each command of `asked`
    printed there.

    The commands must leave the process as it was.
    """
    live = gdbs.Gdb(str(gdbs.PYPI_GDB), folder / "home", [str(command[0])], init=None)
    made = Made(folder / "made.uffd")
    try:
        live.run("set unwindonsignal on")
        for place in where.split():
            live.run(f"break {place}")
        quoted = " ".join(f"'{a}'" for a in command[1:])
        text = live.run(f"run {quoted}", 60)
        with TraceWriter.create(str(made.path)) as writer:
            for label in labels:
                assert "Breakpoint" in text or "received signal" in text, live.transcript
                core = folder / "live.core"
                live.run(f"gcore {core}", 60)
                live.run("set scheduler-locking on")  # no other thread runs on during a call
                made.said.append({each: live.run(each) for each in asked})
                live.run("set scheduler-locking off")
                snapshot = open_core(str(core), None)
                try:
                    importing.add_core(writer, snapshot, label)
                finally:
                    snapshot.close()
                core.unlink()
                text = live.run("continue", 60)
        live.run("kill")
        live.quit()
    finally:
        live.child.close(force=True)
    return made


ROOM = 0x10000000000
"""Where the additional memory of `recorded` lies."""

STEP_NS = 10_000_000

Edit = Callable[[int], Dict[int, bytes]]
"""For a snapshot's number: address -> bytes there from then on."""


def recorded(
    core: Path,
    path: Path,
    count: int,
    edits: Callable[[CoreSnapshot], Edit],
    label: Callable[[int], str] = lambda number: "",
    room: int = 0,
    dirty: float = 0.01,
) -> Path:
    """A trace of `count` snapshots, 10 ms apart, at `path`.

    `room`: bytes of memory that the process has beyond the core's from snapshot 1 on, of random
    content, a share of `dirty` of which changes from each snapshot to the next.
    """
    snapshot = open_core(str(core), None)
    edit = edits(snapshot)
    pages: Dict[int, bytearray] = {}
    chance = random.Random(7)
    try:
        with TraceWriter.create(str(path)) as writer:
            begun = _note_begin(writer)
            first = replace(core_info(snapshot), label=label(0), monotonic_ns=STEP_NS)
            importing.add_snapshot(writer, snapshot, first)
            threads, auxv, mappings, *more = begun[0]
            if room:
                mappings = sorted([*mappings, Mapping(ROOM, ROOM + room, 3)], key=_start)
            for number in range(1, count):
                info = replace(
                    first,
                    time_ns=first.time_ns + number * STEP_NS,
                    monotonic_ns=STEP_NS * (number + 1),
                    label=label(number),
                )
                pending = writer.begin(info, threads, auxv, mappings, *more)
                for address, data in edit(number).items():
                    start = page_floor(address)
                    page = pages.get(start)
                    if page is None:
                        page = pages[start] = bytearray(snapshot.read(start, PAGE_SIZE))
                    page[address - start : address - start + len(data)] = data
                    pending.put(start, page)
                if room and number == 1:
                    pending.area(ROOM, room // PAGE_SIZE)
                    for start in range(0, room, 1 << 24):
                        pending.put(ROOM + start, os.urandom(min(1 << 24, room - start)))
                elif room:
                    total = room // PAGE_SIZE
                    for n in sorted(chance.sample(range(total), int(total * dirty))):
                        pending.put(ROOM + n * PAGE_SIZE, os.urandom(PAGE_SIZE))
                pending.commit()
    finally:
        snapshot.close()
    return path


def _start(mapping: Mapping) -> int:
    return mapping.start


def _note_begin(writer: TraceWriter) -> List[Tuple[Any, ...]]:
    """What `writer.begin` was given, but for the info, call by call."""
    begun: List[Tuple[Any, ...]] = []
    begin = writer.begin

    def noting(info: Any, *rest: Any) -> Any:
        begun.append(rest)
        return begin(info, *rest)

    writer.begin = noting  # type: ignore[method-assign,assignment]
    return begun
