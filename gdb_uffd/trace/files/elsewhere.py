"""A directory below which the recorded process's files have their recorded paths: what gdb calls a
sysroot.  It is needed where a file is not where gdb would look for it (found by its build-id, below
another root, or unpacked from the trace itself), and where gdb would find another build of one."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace import symbols
from gdb_uffd.trace.files import automount, debug_files
from gdb_uffd.trace.files.files import Module, without_mark
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import ReadMemory


class Elsewhere:
    """`path` is "" while there is no need for the directory; `close` removes it, or the end of the
    process does.  `brought`: whether what is in it came with the trace, see Search.brought."""

    def __init__(self) -> None:
        self.path, self.brought = "", False
        self._finalizer: Optional[weakref.finalize[..., Elsewhere]] = None

    def place(self, path: str) -> str:
        """Where the file of that path goes, its directory made; ValueError, OSError."""
        parts = os.path.normpath("/" + without_mark(path)).strip("/").split("/")
        if len(path) > symbols.MAX_NAME or parts == [""]:
            raise ValueError("its path is not one of a file")
        self._make()
        target = os.path.join(self.path, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return target

    def _make(self) -> None:
        if not self.path:
            scratch = Scratch("root")
            self.path = scratch.path
            self._finalizer = weakref.finalize(self, scratch.close)

    def link(
        self,
        modules: Sequence[Module],
        main: Optional[Module],
        read: ReadMemory,
        search: Optional[FileSearch],
    ) -> None:
        """Give all modules that have their file the names by which gdb looks for them (the path
        that was mapped, and that of the dynamic linker's list), if a file is not where gdb would
        look, or another build of it is (gdb takes what it finds for the one that was mapped, and
        would show its names at the old addresses), or its debug file is where gdb does not look.
        Also where gdb, by a name of the core's choosing, could make an automounter ask."""
        search = search or FileSearch()
        names = _names(modules, main, read)
        debug = self._debug_links(modules, search)
        asks = not search.sysroot.strip("/") and automount.is_here()
        if not (debug or asks) and all(
            _as_gdb_would(p, m, m is main, search.sysroot) for p, m in names
        ):
            return
        self._make()
        for path, module in names:
            if module.file is None:
                continue
            try:
                target = self.place(path)
                if not os.path.lexists(target):
                    os.symlink(module.file.path, target)
                self._note(target, search)
            except (OSError, ValueError):
                continue  # gdb then says which library it misses

    def _debug_links(self, modules: Sequence[Module], search: FileSearch) -> bool:
        """Name debug files that lie in places of the user's by build-id; whether there are any."""
        made = False
        for module in modules if search.places() else ():
            if module.file is None or not module.file.build_id:
                continue
            found = debug_files.find(module.file, search)
            if found is not None:
                made = True
                self._debug_link(module.file.build_id, found, search)
                more = debug_files.find_alternative(found, search)
                if more is not None:
                    self._debug_link(debug_files.build_id_at(more), more, search)
        return made

    def _debug_link(self, build_id: bytes, found: str, search: FileSearch) -> None:
        name = build_id.hex()
        with contextlib.suppress(OSError, ValueError):
            target = self.place(f"/{debug_files.FOLDER}/.build-id/{name[:2]}/{name[2:]}.debug")
            if not os.path.lexists(target):
                os.symlink(found, target)
            self._note(target, search)

    def _note(self, target: str, search: FileSearch) -> None:
        own = os.path.realpath(self.path) + "/"  # what a trace holds itself is unpacked into it
        self.brought |= os.path.realpath(target).startswith(own) or search.brought(target)

    def close(self) -> None:
        """Remove the directory.  Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self.path = ""


def link_more(root: str, paths: Sequence[str], modules: Sequence[Module]) -> None:
    """Files that the program has mapped since, below `root`, where gdb looks.  Not in the place of
    one that is missing: this is another build of it."""
    for path in paths:
        target = root + path
        if any(module.path == path for module in modules) or os.path.lexists(target):
            continue
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(path, target)


def _names(
    modules: Sequence[Module], main: Optional[Module], read: ReadMemory
) -> List[Tuple[str, Module]]:
    """The absolute paths by which gdb may look for each module."""
    names = [(m.path, m) for m in modules]
    for entry in symbols.link_maps(main, read):
        try:
            dynamic = symbols.read_word(read, entry + 16)  # l_ld
            module = next((m for m in modules if m.holds(dynamic)), None)
            if module is not None:
                name = symbols.read_word(read, entry + 8)
                names.append((symbols.read_string(read, name), module))
        except MemoryUnavailable:
            continue
    return [(path, module) for path, module in names if path.startswith("/")]


def _as_gdb_would(path: str, module: Module, is_main: bool, sysroot: str) -> bool:
    """Whether gdb finds at `path` the file of `module`, or nothing where there is none."""
    there = sysroot.rstrip("/") + without_mark(path)
    try:
        if module.file is None:  # the executable is not looked for: the server names it
            return is_main or (automount.may_look(there) and not os.path.isfile(there))
        return automount.may_look(there) and os.path.samefile(there, module.file.path)
    except (OSError, ValueError):
        return False
