"""The process as it is now, also after kept calls, as a core file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import List, Sequence

from gdb_uffd.protocol.messages_travel import Exported
from gdb_uffd.protocol.model import Mapping
from gdb_uffd.server.session import StubSession
from gdb_uffd.trace.core.core_write import by_reference, write_core, zero_ranges
from gdb_uffd.trace.source import FILE, Snapshot


def export(session: StubSession, path: str) -> Exported:
    """Write the core file `path`, which must not exist.

    The selected thread comes first.  UffdError, one line; nothing is left behind then.
    """
    diversion, snapshot = session.diversion, session.diversion.snapshot
    diversion.refuse_loss()
    report = diversion.report_all()
    dirty = sorted(page.start for page in report.pages)
    threads = [
        replace(
            thread,
            registers=diversion.registers(thread.tid),
            siginfo=diversion.siginfo(thread.tid),
        )
        for thread in snapshot.threads
    ]
    threads.sort(key=lambda thread: thread.tid != session.general)
    files = list(dict.fromkeys([*snapshot.files_read, *report.files_read]))

    def read(address: int, length: int) -> bytes:
        found = diversion.read_memory(address, length)
        diversion.refuse_loss()
        return found

    done = write_core(
        path,
        snapshot.pid,
        threads,
        snapshot.auxv,
        _with_grown_stack(diversion.mappings(), dirty),
        read,
        zeros=() if diversion.alive else zero_ranges(snapshot.segments),
        from_file=_Files(snapshot, dirty).have,
        name=snapshot.executable,
        files_read=files,
    )
    return Exported(path, done.size, done.unavailable_pages, files)


class _Files:
    """Which mappings hold just what their files do."""

    def __init__(self, snapshot: Snapshot, dirty: Sequence[int]) -> None:
        self._segments = snapshot.segments
        self._starts = [s.start for s in snapshot.segments]
        self._core = getattr(snapshot, "core", None)
        self._dirty = dirty

    def have(self, mapping: Mapping) -> bool:
        """Whether every page of `mapping` comes from its file, and none was written since."""
        if not by_reference(mapping):
            return False
        at = bisect_left(self._dirty, mapping.start)
        if at < len(self._dirty) and self._dirty[at] < mapping.end:
            return False
        first = max(0, bisect_right(self._starts, mapping.start) - 1)
        last = bisect_left(self._starts, mapping.end)
        return all(
            s.kind == FILE and s.data is not self._core and not s.composed
            for s in self._segments[first:last]
        )


def _with_grown_stack(mappings: Sequence[Mapping], dirty: Sequence[int]) -> List[Mapping]:
    """With the main stack as the kernel would have grown it for the pages written below it."""
    out: List[Mapping] = []
    below = 0
    for mapping in mappings:
        if mapping.name == "[stack]":
            first, last = bisect_left(dirty, below), bisect_left(dirty, mapping.start)
            if first < last:
                mapping = replace(mapping, start=min(mapping.start, dirty[first]))
        out.append(mapping)
        below = mapping.end
    return out
