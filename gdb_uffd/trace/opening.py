"""Opening a trace of any kind by its path."""

from __future__ import annotations

import os
import stat
from typing import List, Optional, Sequence

from gdb_uffd.outputs import TRACE
from gdb_uffd.protocol.model import SnapshotInfo, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.compare import find_snapshot
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.core.info import core_info
from gdb_uffd.trace.files.elsewhere import Elsewhere
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.source import INDEX, Trace
from gdb_uffd.trace.store.compressed import compression


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


def open_trace(
    path: str, executable: Optional[str] = None, search: Optional[FileSearch] = None
) -> Trace:
    """See gdb_uffd.trace.open."""
    # What only recorded traces need is imported for them only: a core opens as fast as ever.
    try:
        if os.path.isdir(path):
            if os.path.lexists(os.path.join(path, INDEX)):
                from gdb_uffd.trace.store.read import StoreTrace

                return StoreTrace(path, executable, search=search)
            if path.rstrip("/").endswith(TRACE):
                raise UffdError(f"{printable(path)}: has no {INDEX}; the trace is not whole")
        elif _may_be_packed(path):
            from gdb_uffd.trace.store.packed import CORE_MARK, VERSION_NAME, packed_kind

            kind = packed_kind(path)
            if kind == VERSION_NAME:
                from gdb_uffd.trace.store.packed_trace import PackedTrace

                return PackedTrace(path, executable, search)
            if kind == CORE_MARK:
                from gdb_uffd.trace.store.core_packed import PackedCore

                return PackedCore(path, executable, search)
        return CoreTrace(path, executable, search)
    except ValueError as error:  # NUL in the name
        raise UffdError(f"{printable(path)}: {error}") from error


def _may_be_packed(path: str) -> bool:
    """Whether it is a regular file compressed with zstd, which may be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return compression(file.read(8)) == "zstd"
    except OSError:
        return False  # open_core has the words for it
