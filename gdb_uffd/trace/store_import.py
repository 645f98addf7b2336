"""Cores of one program, one after the other, as a trace."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Sequence

from gdb_uffd.model import PAGE_SIZE, Mapping, SnapshotInfo, UffdError
from gdb_uffd.outputs import whole_folder
from gdb_uffd.trace.core import CoreSnapshot
from gdb_uffd.trace.files import FileRef, Module, printable
from gdb_uffd.trace.info import core_info
from gdb_uffd.trace.layout import KEPT_OUT, TRUNCATED
from gdb_uffd.trace.notes import USER_END
from gdb_uffd.trace.opening import open_trace
from gdb_uffd.trace.search import Search
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO, Segment
from gdb_uffd.trace.store_format import trace_path
from gdb_uffd.trace.store_pending import Pending
from gdb_uffd.trace.store_write import Writer


@dataclass
class Imported:
    """What became of it.  `warnings`: the cores', each once."""

    path: str
    snapshots: int
    pages_stored: int
    warnings: List[str]


def import_cores(
    cores: Sequence[str],
    path: str,
    *,
    executable: Optional[str] = None,
    self_contained: bool = False,
    search: Optional[Search] = None,
    progress: Optional[Callable[[int, str], None]] = None,
) -> Imported:
    """Make the trace `path` of `cores`, in this order; each may be compressed.

    Each snapshot has the core's file name as its label and the time of its last change.
    `progress` is called with each number and core when it is in the trace.  UffdError when one of
    them is no core; the trace is then not made.
    """
    warnings: Dict[str, None] = {}
    target = trace_path(path)
    if os.path.lexists(target):
        raise UffdError(f"{printable(target)}: exists already; remove it or choose another name")
    try:
        with (
            whole_folder(target) as made,
            Writer.create(made, self_contained=self_contained) as writer,
        ):
            for number, core in enumerate(cores):
                warnings.update(dict.fromkeys(_import(writer, core, executable, search)))
                if progress is not None:
                    progress(number, core)
    except OSError as error:
        raise UffdError(
            f"{printable(target)}: the trace cannot be made ({os.strerror(error.errno or 0)})"
        ) from error
    done = os.path.abspath(target)
    return Imported(done, writer.snapshots, writer.pages_stored, list(warnings))


def _import(
    writer: Writer, core: str, executable: Optional[str], search: Optional[Search]
) -> List[str]:
    """Append one core; its warnings."""
    trace = open_trace(core, executable, search)
    with closing(trace), closing(trace.snapshot(0)) as snapshot:
        if not isinstance(snapshot, CoreSnapshot):
            raise UffdError(f"{core}: is a trace already; give cores")
        if not snapshot.arch.records:
            raise UffdError(
                f"{core}: a core of {snapshot.arch.spoken}; traces hold x86-64 only. "
                "Open the core itself: uffd spawn CORE"
            )
        add_core(writer, snapshot, os.path.basename(core))
        return snapshot.warnings


def add_core(writer: Writer, snapshot: CoreSnapshot, label: str) -> int:
    """Append a core to a trace; its number.  UffdError."""
    return add_snapshot(writer, snapshot, replace(core_info(snapshot), label=label)).number


def add_snapshot(writer: Writer, snapshot: CoreSnapshot, info: SnapshotInfo) -> SnapshotInfo:
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


def _put_pages(pending: Pending, snapshot: CoreSnapshot) -> None:
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


def _put(pending: Pending, segment: Segment, view: memoryview) -> None:
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
