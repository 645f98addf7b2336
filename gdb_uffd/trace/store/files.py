"""Executables and libraries that a trace holds itself, for a machine that has not got them.

Those that are needed are unpacked into a private directory (elsewhere.py).
"""

from __future__ import annotations

import os
from array import array
from typing import Dict, Optional, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.trace.files.elsewhere import Elsewhere
from gdb_uffd.trace.files.files import FileProblem, MappedFile, Module, map_file
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.index import TraceIndex
from gdb_uffd.trace.store.page_read import BadPage, PageData

_AT_ONCE = 1024  # pages


class StoredFiles:
    """The files of one trace, unpacked below `elsewhere` when they are needed."""

    def __init__(self, index: TraceIndex, pages: PageData, elsewhere: Elsewhere) -> None:
        self._index, self._pages = index, pages
        self._done: Dict[bytes, Optional[MappedFile]] = {}
        self._elsewhere = elsewhere

    def slots(self, name: bytes) -> Tuple[int, "array[int]"]:
        """(size in bytes, slots of its pages) of a stored file; FormatError."""
        raw = self._index.object(name, form.FILE_PAGES)
        size = int.from_bytes(raw[:8], "little")
        slots = array("I")
        if len(raw) < 8 or len(raw) % 4 or not size or -(-size // PAGE_SIZE) != (len(raw) - 8) // 4:
            raise form.FormatError("a record of a stored file is malformed")
        slots.frombytes(raw[8:])
        return size, slots

    def get(self, module: Module, name: bytes) -> Optional[MappedFile]:
        """The stored file of `module`, unpacked, and module.slots, where its pages lie.

        None, with module.reason telling why, when it is damaged; its good pages then still are
        where module.slots says.
        """
        try:
            _, module.slots = self.slots(name)
            if name not in self._done:
                self._done[name] = None  # not tried again for other modules
                self._done[name] = map_file(self._unpack(module.path, name))
        except (form.FormatError, BadPage, FileProblem, OSError, ValueError) as error:
            why = error.reason if isinstance(error, BadPage) else str(error)
            module.reason += f"; the trace's copy of it is not whole ({why})"
        return self._done.get(name)

    def _unpack(self, path: str, name: bytes) -> str:
        size, slots = self.slots(name)
        target = self._elsewhere.place(path)
        try:
            with open(target, "xb") as file:
                for first in range(0, len(slots), _AT_ONCE):
                    file.write(self._pages.read(slots[first : first + _AT_ONCE]))
                file.truncate(size)
        except BaseException:
            if os.path.exists(target):
                os.unlink(target)
            raise
        return target
