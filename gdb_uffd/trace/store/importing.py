"""Cores of one program, one after the other, as a trace."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import closing
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.outputs import trace_path
from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, SnapshotInfo, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.core import CoreSnapshot
from gdb_uffd.trace.core.info import core_info
from gdb_uffd.trace.core.mappings import KEPT_OUT, TRUNCATED
from gdb_uffd.trace.core.notes import USER_END
from gdb_uffd.trace.files.files import FileRef, Module
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.opening import open_trace
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO, Segment, Snapshot
from gdb_uffd.trace.store.pending import PendingSnapshot
from gdb_uffd.trace.store.write import TraceWriter


@dataclass
class Imported:
    """What became of it.  `warnings`: the cores', each once; `files_read`: files whose bytes calls
    brought into them before they were exported."""

    path: str
    snapshots: int
    pages_stored: int
    warnings: List[str]
    files_read: List[str]


def import_cores(
    cores: Sequence[str],
    path: str,
    *,
    executable: Optional[str] = None,
    self_contained: bool = False,
    search: Optional[FileSearch] = None,
    progress: Optional[Callable[[int, str], None]] = None,
) -> Imported:
    """Make the trace `path` of `cores`, in this order; each may be compressed.

    Each snapshot has the core's file name as its label and the time of its last change.
    `progress` is called with each number and core when it is in the trace.  UffdError when one of
    them is no core, or of another program than the first; the trace is then not made.
    """
    warnings: Dict[str, None] = {}
    target = os.path.abspath(trace_path(path))
    shown = printable(target)
    if os.path.lexists(target):
        raise UffdError(f"{shown}: exists already; remove it or choose another name")
    first: Optional[_Program] = None
    read: Dict[str, None] = {}
    try:
        with closing(Scratch("import", beside=target)) as scratch:
            made = os.path.join(scratch.path, os.path.basename(target))
            with TraceWriter.create(made, self_contained=self_contained) as writer:
                for number, core in enumerate(cores):
                    trace = open_trace(core, executable, search)
                    with closing(trace), closing(trace.snapshot(0)) as snapshot:
                        first = _import(writer, core, snapshot, first)
                        warnings.update(dict.fromkeys(snapshot.warnings))
                        read.update(dict.fromkeys(snapshot.files_read))
                    if progress is not None:
                        progress(number, core)
            os.rename(made, target)
    except OSError as error:
        raise UffdError(
            f"{shown}: the trace cannot be made ({os.strerror(error.errno or 0)})"
        ) from error
    return Imported(target, writer.snapshots, writer.pages_stored, list(warnings), list(read))


def _import(
    writer: TraceWriter, core: str, snapshot: Snapshot, first: "Optional[_Program]"
) -> "_Program":
    """Append one core of the program `first` (None: of any); that program.  UffdError."""
    if not isinstance(snapshot, CoreSnapshot):
        raise UffdError(f"{core}: is a trace already; give cores")
    if not snapshot.arch.records:
        raise UffdError(
            f"{core}: a core of {snapshot.arch.spoken}; traces hold x86-64 only. "
            "Open the core itself: uffd spawn CORE"
        )
    program = _program(core, snapshot)
    _check_same(first or program, program)
    add_core(writer, snapshot, os.path.basename(core))
    return first or program


@dataclass(frozen=True)
class _Program:
    """What a core is of.  `name`: the executable's, else the kernel's of the process; `build_id` in
    hex, "" where there is none."""

    core: str
    name: str
    build_id: str

    def __str__(self) -> str:
        name = printable(self.name) or "an unknown program"
        return f"{name} (build-id {self.build_id})" if self.build_id else name


def _program(core: str, snapshot: CoreSnapshot) -> _Program:
    main = snapshot.main
    if main is None:
        return _Program(core, snapshot.facts.name, "")
    return _Program(core, os.path.basename(main.path), main.recorded_id.hex())


def _check_same(first: _Program, other: _Program) -> None:
    """UffdError unless both are of one program, of whatever process: gdb has the symbols of one
    executable for all snapshots of a trace."""
    if first.build_id and other.build_id:
        same = first.build_id == other.build_id
    else:
        same = first.name == other.name or not (first.name and other.name)
    if not same:
        what = "another build" if first.name == other.name else "another program"
        raise UffdError(
            f"{other.core}: is of {what} than {first.core}: of {other}, not of {first}; "
            "make a trace of each"
        )


def add_core(writer: TraceWriter, snapshot: CoreSnapshot, label: str) -> int:
    """Append a core to a trace; its number.  UffdError."""
    return add_snapshot(writer, snapshot, replace(core_info(snapshot), label=label)).number


def add_snapshot(writer: TraceWriter, snapshot: CoreSnapshot, info: SnapshotInfo) -> SnapshotInfo:
    """Append a core of which `info` is known; `info` as it is in the trace.  UffdError."""
    lost = _lost(snapshot)
    pending = writer.begin(
        info,
        snapshot.threads,
        snapshot.auxv,
        _mappings(snapshot, lost),
        _files(snapshot.modules),
        {m.path: m.file.path for m in snapshot.modules if m.file is not None},
        [(s.start, s.end) for s in snapshot.segments if s.unknown and s.end <= USER_END],
    )
    pending.process = snapshot.facts
    try:
        _put_pages(pending, snapshot)
        for segment in lost:
            pages = (segment.end - segment.start) // PAGE_SIZE
            pending.area(segment.start, pages)
            pending.unavailable(segment.start, pages)
        pending.commit()
        return pending.info
    finally:
        pending.abandon()


def _owners(modules: Sequence[Module]) -> Dict[int, Module]:
    return {r.start: m for m in modules for r in m.ranges}


def _mappings(snapshot: CoreSnapshot, lost: Sequence[Segment]) -> List[Mapping]:
    """With the names as recorded.  Why a file cannot be had is found out anew at each opening."""
    owners = _owners(snapshot.modules)
    marked = [s.start for s in lost]
    out: List[Mapping] = []
    for m in snapshot.mappings:
        module = owners.get(m.start)
        if module is not None:
            m = replace(m, name=module.path, unavailable="")
        elif any(m.start <= start < m.end for start in marked):
            m = replace(m, unavailable="")
        out.append(m)
    return out


def _files(modules: Sequence[Module]) -> Dict[str, FileRef]:
    """What each mapped file was; of one that is not there, what the core knows of it."""
    out: Dict[str, FileRef] = {}
    for module in modules:
        if module.file is not None:
            out[module.path] = module.file.ref()
        else:
            out.setdefault(module.path, FileRef(module.recorded_id))
    return out


def _put_pages(pending: PendingSnapshot, snapshot: CoreSnapshot) -> None:
    """The pages that the core holds itself; nothing stays of the snapshot before."""
    pending.forget(0, USER_END)
    view = memoryview(snapshot.core)
    try:
        for segment in snapshot.segments:
            pages = (segment.end - segment.start) // PAGE_SIZE
            if segment.kind == FILE and segment.composed:
                pending.area(segment.start, pages)
                _put(pending, segment, memoryview(segment.data or b""))
            elif segment.kind == FILE and segment.data is snapshot.core:
                pending.area(segment.start, pages)
                _put(pending, segment, view)
    finally:
        view.release()


def _put(pending: PendingSnapshot, segment: Segment, view: memoryview) -> None:
    end = segment.offset + segment.end - segment.start
    have = min(end, segment.data_end)
    whole = have - (have - segment.offset) % PAGE_SIZE
    pending.put(segment.start, view[segment.offset : whole])


def _lost(snapshot: CoreSnapshot) -> List[Segment]:
    """Unavailable parts of mappings of which the rest is elsewhere than in the core: they must be
    marked page by page.  What is missing with its file is no loss for good."""
    owners = _owners(snapshot.modules)
    starts = [m.start for m in snapshot.mappings]
    untouched = {
        starts[bisect_right(starts, s.start) - 1] for s in snapshot.segments if s.kind == ZERO
    }
    lost: List[Segment] = []
    for segment in snapshot.segments:
        if segment.kind != UNAVAILABLE:
            continue
        start = starts[bisect_right(starts, segment.start) - 1]
        if (start in owners and segment.reason in (TRUNCATED, KEPT_OUT)) or start in untouched:
            lost.append(segment)
    return lost
