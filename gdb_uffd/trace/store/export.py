"""A snapshot as a core file that stock gdb opens."""

from __future__ import annotations

from typing import Set

from gdb_uffd.protocol.model import PAGE_SIZE, Mapping
from gdb_uffd.trace.core.core_write import Written, by_reference, write_core, zero_ranges
from gdb_uffd.trace.source import FILE, UNAVAILABLE, Snapshot


def export_snapshot(snapshot: Snapshot, path: str) -> Written:
    """Write the core file `path`, which must not exist.  UffdError, one line."""
    changed = _not_as_in_file(snapshot)

    def from_file(mapping: Mapping) -> bool:
        return by_reference(mapping) and mapping.start not in changed

    return write_core(
        path,
        snapshot.pid,
        snapshot.threads,
        snapshot.auxv,
        snapshot.mappings,
        snapshot.read,
        zeros=zero_ranges(snapshot.segments),
        from_file=from_file,
        name=next((t.name for t in snapshot.threads if t.tid == snapshot.pid), ""),
        files_read=snapshot.files_read,
    )


def _not_as_in_file(snapshot: Snapshot) -> Set[int]:
    """Starts of the mappings some of whose pages were recorded: the first page of an
    object (its identity, in every core) does not count."""
    core = getattr(snapshot, "core", None)  # of a core: its own bytes, whatever they map
    starts: Set[int] = set()
    position = 0
    for mapping in snapshot.mappings:
        while position < len(snapshot.segments):
            segment = snapshot.segments[position]
            if segment.start >= mapping.end:
                break
            from_file = segment.kind == FILE and not segment.composed and segment.data is not core
            first = segment.start == mapping.start and mapping.offset == 0
            header = first and segment.end - segment.start == PAGE_SIZE
            if not from_file and segment.kind != UNAVAILABLE and not header:
                starts.add(mapping.start)
            position += 1
    return starts
