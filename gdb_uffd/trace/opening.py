"""Opening a trace of any kind by its path."""

from __future__ import annotations

import os
import stat
from typing import Optional

from gdb_uffd.outputs import TRACE
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.core_trace import CoreTrace
from gdb_uffd.trace.files.compressed import compression
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.source import INDEX, Trace
from gdb_uffd.trace.store.core_packed import PackedCore
from gdb_uffd.trace.store.packed import CORE_MARK, VERSION_NAME, packed_kind
from gdb_uffd.trace.store.packed_trace import PackedTrace
from gdb_uffd.trace.store.read import StoreTrace


def open_trace(
    path: str, executable: Optional[str] = None, search: Optional[FileSearch] = None
) -> Trace:
    """See gdb_uffd.trace.open."""
    try:
        if os.path.isdir(path):
            if os.path.lexists(os.path.join(path, INDEX)):
                return StoreTrace(path, executable, search=search)
            if path.rstrip("/").endswith(TRACE):
                raise UffdError(f"{printable(path)}: has no {INDEX}; the trace is not whole")
        elif _may_be_packed(path):
            kind = packed_kind(path)
            if kind == VERSION_NAME:
                return PackedTrace(path, executable, search)
            if kind == CORE_MARK:
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
