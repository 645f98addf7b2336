"""Executables and libraries that a trace holds itself, for a machine that has not got them.

Those that are needed are unpacked into a private directory, below which they have the paths that
they were mapped from: what gdb calls a sysroot.
"""

from __future__ import annotations

import os
import weakref
from array import array
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.model import PAGE_SIZE, MemoryUnavailable
from gdb_uffd.trace import store_format as form
from gdb_uffd.trace import symbols
from gdb_uffd.trace.files import DELETED, FileProblem, MappedFile, Module, map_file
from gdb_uffd.trace.page_read import BadPage, PageData
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import ReadMemory
from gdb_uffd.trace.store_index import Index

_AT_ONCE = 1024  # pages
MAX_NAME = 4096  # PATH_MAX (<linux/limits.h>)


class StoredFiles:
    """The files of one trace.  `sysroot` is "" until one was unpacked; `close` removes it, or
    the end of the process does."""

    def __init__(self, index: Index, pages: PageData) -> None:
        self._index, self._pages = index, pages
        self._done: Dict[bytes, Optional[MappedFile]] = {}
        self._finalizer: Optional[weakref.finalize[..., StoredFiles]] = None
        self.sysroot = ""

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
        target = self.place(path)
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

    def place(self, path: str) -> str:
        """Where the file of that path goes, its directory made; ValueError, OSError."""
        if path.endswith(DELETED):
            path = path[: -len(DELETED)]
        parts = os.path.normpath("/" + path).strip("/").split("/")
        if len(path) > MAX_NAME or parts == [""]:
            raise ValueError("its path is not one of a file")
        if not self.sysroot:
            scratch = Scratch("root")
            self.sysroot = scratch.path
            self._finalizer = weakref.finalize(self, scratch.close)
        target = os.path.join(self.sysroot, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return target

    def complete(self, modules: Sequence[Module], main: Optional[Module], read: ReadMemory) -> None:
        """Give all modules the names in the sysroot by which gdb looks for them: the path that
        was mapped, and that of the dynamic linker's list."""
        if not self.sysroot:
            return
        biases = {m.bias: m for m in reversed(modules) if m.image is not None}
        names: List[Tuple[str, Module]] = [(m.path, m) for m in modules]
        for entry in symbols.link_maps(main, read):
            try:
                module = biases.get(symbols.read_word(read, entry))  # l_addr
                if module is not None:
                    names.append((_string(read, symbols.read_word(read, entry + 8)), module))
            except MemoryUnavailable:
                continue
        for path, module in names:
            if module.file is None or not path.startswith("/"):
                continue
            try:
                target = self.place(path)
                if not os.path.lexists(target):
                    os.symlink(module.file.path, target)
            except (OSError, ValueError):
                continue  # gdb then says which library it misses

    def close(self) -> None:
        """Remove the sysroot.  Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self.sysroot = ""


def _string(read: ReadMemory, address: int) -> str:
    """The C string at `address`, "" for one that is no path; MemoryUnavailable."""
    raw = b""
    while b"\0" not in raw and len(raw) < MAX_NAME:
        raw += read(address + len(raw), 64 - (address + len(raw)) % 64)
    return os.fsdecode(raw.split(b"\0")[0])
