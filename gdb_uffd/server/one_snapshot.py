"""A core as a trace of one snapshot."""

from __future__ import annotations

from typing import List, Optional, Sequence

from gdb_uffd.model import SnapshotInfo, UffdError
from gdb_uffd.trace.source import Snapshot, Trace


class OneSnapshot:
    """A trace with a single snapshot, which is open already."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.path = snapshot.path
        self.warnings: List[str] = []
        self.snapshots: Sequence[SnapshotInfo] = [SnapshotInfo(0, pid=snapshot.pid)]
        self._snapshot = snapshot

    def snapshot(self, number: int) -> Snapshot:
        if number:
            raise UffdError(f"no snapshot {number}: there is only 0")
        return self._snapshot

    def find(self, name: str) -> int:
        return 0

    def changed_pages(self, a: int, b: int) -> List[int]:
        return []

    def close(self) -> None:
        self._snapshot.close()


def open_any(path: str, executable: Optional[str]) -> Trace:
    import gdb_uffd.trace
    from gdb_uffd.trace.core import open_core

    opener = getattr(gdb_uffd.trace, "open", None)
    if opener is not None:
        trace: Trace = opener(path, executable)
        return trace
    return OneSnapshot(open_core(path, executable))
