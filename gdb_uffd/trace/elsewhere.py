"""A directory below which the recorded process's files have their recorded paths: what gdb calls a
sysroot.  It is needed where a file is not where gdb would look for it: found by its build-id, below
another root, or unpacked from the trace itself."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import List, Optional, Sequence, Tuple

from gdb_uffd.model import MemoryUnavailable
from gdb_uffd.trace import debug_files, symbols
from gdb_uffd.trace.files import DELETED, Module
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.search import Search
from gdb_uffd.trace.source import ReadMemory

MAX_NAME = 4096  # PATH_MAX (<linux/limits.h>)


class Elsewhere:
    """`path` is "" while there is no need for the directory; `close` removes it, or the end of the
    process does."""

    def __init__(self) -> None:
        self.path = ""
        self._finalizer: Optional[weakref.finalize[..., Elsewhere]] = None

    def place(self, path: str) -> str:
        """Where the file of that path goes, its directory made; ValueError, OSError."""
        parts = os.path.normpath("/" + _without_mark(path)).strip("/").split("/")
        if len(path) > MAX_NAME or parts == [""]:
            raise ValueError("its path is not one of a file")
        if not self.path:
            scratch = Scratch("root")
            self.path = scratch.path
            self._finalizer = weakref.finalize(self, scratch.close)
        target = os.path.join(self.path, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return target

    def link(
        self,
        modules: Sequence[Module],
        main: Optional[Module],
        read: ReadMemory,
        search: Optional[Search],
    ) -> None:
        """Give all modules the names by which gdb looks for them (the path that was mapped, and
        that of the dynamic linker's list), if one is not where gdb would look, or its debug file
        was found where gdb does not look."""
        search = search or Search()
        debug = self._debug_links(modules, search)
        if not debug and all(m.file is None or _expected(m, search.sysroot) for m in modules):
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

    def _debug_links(self, modules: Sequence[Module], search: Search) -> bool:
        """Name debug files that lie in places of the user's by build-id; whether there are any."""
        made = False
        for module in modules if search.places() else ():
            if module.file is None or not module.file.build_id:
                continue
            found = debug_files.find(module.file, search)
            if found is not None:
                made = True
                self._debug_link(module.file.build_id, found)
                more = debug_files.find_alternative(found, search)
                if more is not None:
                    self._debug_link(debug_files.build_id_at(more), more)
        return made

    def _debug_link(self, build_id: bytes, found: str) -> None:
        name = build_id.hex()
        with contextlib.suppress(OSError, ValueError):
            target = self.place(f"/{debug_files.FOLDER}/.build-id/{name[:2]}/{name[2:]}.debug")
            if not os.path.lexists(target):
                os.symlink(found, target)

    def close(self) -> None:
        """Remove the directory.  Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self.path = ""


def _without_mark(path: str) -> str:
    return path[: -len(DELETED)] if path.endswith(DELETED) else path


def _expected(module: Module, sysroot: str) -> bool:
    return module.file is not None and (
        module.file.path == sysroot.rstrip("/") + _without_mark(module.path)
    )


def _string(read: ReadMemory, address: int) -> str:
    """The C string at `address`, "" for one that is no path; MemoryUnavailable."""
    raw = b""
    while b"\0" not in raw and len(raw) < MAX_NAME:
        raw += read(address + len(raw), 64 - (address + len(raw)) % 64)
    return os.fsdecode(raw.split(b"\0")[0])
