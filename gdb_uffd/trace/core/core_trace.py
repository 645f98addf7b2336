"""A core as a trace of one snapshot."""

from __future__ import annotations

from typing import List, Optional, Sequence

from gdb_uffd.protocol.model import SnapshotInfo, UffdError
from gdb_uffd.trace.compare import find_snapshot
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.core.info import core_info
from gdb_uffd.trace.files.elsewhere import Elsewhere
from gdb_uffd.trace.files.search import FileSearch


class CoreTrace:
    """A core as a trace of one snapshot."""

    def __init__(
        self,
        path: str,
        executable: Optional[str] = None,
        search: Optional[FileSearch] = None,
        name: str = "",
    ) -> None:
        """`name`: what the user calls it, when that is not `path`.  UffdError as open_core."""
        self.path = name or path
        self._file = path
        self.warnings: List[str] = []
        self._executable, self._search = executable, search
        self._elsewhere = Elsewhere()
        self._first: Optional[CoreSnapshot] = open_core(path, executable, search, name)
        self.snapshots: Sequence[SnapshotInfo] = [core_info(self._first)]

    def snapshot(self, number: int) -> CoreSnapshot:
        """Open it; the caller closes it.  UffdError when `number` is not 0."""
        if number != 0:
            raise UffdError(f"no snapshot {number}: there is only 0")
        first, self._first = self._first, None
        if first is None:
            first = open_core(self._file, self._executable, self._search, self.path)
        self._elsewhere.link(first.modules, first.main, first.read, self._search)
        return first

    @property
    def sysroot(self) -> str:
        """A folder with links to the files that are not where they were, below their old paths;
        "" while there are none."""
        return self._elsewhere.path

    @property
    def brought(self) -> bool:
        """Whether files below `sysroot` came with the trace or for it (Search.brought)."""
        return self._elsewhere.brought

    def find(self, name: str) -> int:
        """0 for "0", "start" and "end"; UffdError."""
        return find_snapshot(self.snapshots, name)

    def changed_pages(self, a: int, b: int) -> List[int]:
        """Nothing; UffdError when there is no such snapshot."""
        for number in (a, b):
            if number != 0:
                raise UffdError(f"no snapshot {number}: there is only 0")
        return []

    def close(self) -> None:
        """Close the core unless `snapshot` handed it out.  Idempotent."""
        first, self._first = self._first, None
        if first is not None:
            first.close()
        self._elsewhere.close()
