"""A packed trace as a trace."""

from __future__ import annotations

import os
import tempfile
from typing import Optional

from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.store.packed import unpack_into
from gdb_uffd.trace.store.read import StoreTrace


class PackedTrace(StoreTrace):
    """A packed trace, unpacked into files that lose their names once they are open."""

    def __init__(
        self, path: str, executable: Optional[str] = None, search: Optional[FileSearch] = None
    ) -> None:
        """UffdError."""
        try:
            self._scratch = Scratch("packed")
            try:
                unpack_into(path, self._scratch.path, search.unpack_limit if search else 0)
                super().__init__(self._scratch.path, executable, path, search)
            except BaseException:
                self._scratch.close()
                raise
        except OSError as error:
            raise UffdError(
                f"{printable(path)}: cannot be unpacked into {printable(tempfile.gettempdir())} "
                f"({os.strerror(error.errno or 0)}); set TMPDIR to a place with room"
            ) from error
        self._scratch.close()
