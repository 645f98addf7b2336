"""Where the recorded process's files are looked for when they are not at their own paths: below
another root directory, by build-id in debug directories, from debuginfod servers.

What is found by a path is checked as ever (trace/files.py); what is found by a build-id has it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.model import MemoryUnavailable
from gdb_uffd.trace import debuginfod, symbols
from gdb_uffd.trace.files import DELETED, Module
from gdb_uffd.trace.source import ReadMemory

DEBUG_DIRECTORIES = ("/usr/lib/debug", "/usr/lib")
"""Folders with a `.build-id` folder: gdb's own default, and where Fedora's packages put the links
to what they installed."""

_BUILD_ID_MIN = 2  # bytes: the first is a folder's name, the others the file's
_MAX_NAME = 4096  # PATH_MAX (<linux/limits.h>)


@dataclass(frozen=True)
class Search:
    """`sysroot`: a folder that holds the recorded machine's files under their paths, "" for none.
    `debug_directories`: as gdb's `debug-file-directory`.  `servers`: URLs of debuginfod servers
    that may be asked."""

    sysroot: str = ""
    debug_directories: Tuple[str, ...] = DEBUG_DIRECTORIES
    servers: Tuple[str, ...] = ()

    def by_path(self, path: str) -> List[str]:
        """Where a file with that path may be, the likeliest first."""
        below = self.sysroot.rstrip("/") + path if self.sysroot and path[:1] == "/" else ""
        return [below, path] if below and below != path else [path]

    def by_build_id(self, build_id: bytes) -> Iterator[str]:
        """Existing files that should have it, those of debuginfod last.

        Not the `.debug` files beside them: these have the sections' headers without the bytes.
        """
        if len(build_id) < _BUILD_ID_MIN:
            return
        name = build_id.hex()
        tail = os.path.join(".build-id", name[:2], name[2:])
        roots = [self.sysroot.rstrip("/"), ""] if self.sysroot else [""]
        for root in roots:
            for directory in self.debug_directories:
                path = os.path.join(root + os.path.abspath(directory), tail)
                if os.path.exists(path):
                    yield os.path.realpath(path)
        fetched = debuginfod.executable(build_id, self.servers)
        if fetched:
            yield fetched


class FoundElsewhere:
    """A folder in which the files have their recorded paths, as links to where they were found:
    what gdb takes for a sysroot.  `path` is "" while there is no need for one."""

    def __init__(self) -> None:
        self.path = ""
        self._finalizer: Optional[weakref.finalize[..., FoundElsewhere]] = None

    def link(
        self, modules: Sequence[Module], main: Optional[Module], read: ReadMemory, sysroot: str
    ) -> None:
        """Make the folder if a file is not where gdb would look for it (below `sysroot`)."""
        if all(m.file is None or _expected(m, sysroot) for m in modules):
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
            if module.file is not None and path.startswith("/"):
                try:
                    self._add(path, module.file.path)
                except (OSError, ValueError):
                    continue  # gdb then says which library it misses

    def _add(self, path: str, target: str) -> None:
        if path.endswith(DELETED):
            path = path[: -len(DELETED)]
        parts = os.path.normpath("/" + path).strip("/").split("/")
        if len(path) > _MAX_NAME or parts == [""]:
            return
        if not self.path:
            self.path = tempfile.mkdtemp(prefix="gdb-uffd-root-")
            self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, True)
        link = os.path.join(self.path, *parts)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(target, link)

    def close(self) -> None:
        """Remove the folder.  Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self.path = ""


def _expected(module: Module, sysroot: str) -> bool:
    path = module.path[: -len(DELETED)] if module.path.endswith(DELETED) else module.path
    return module.file is not None and module.file.path == sysroot.rstrip("/") + path


def _string(read: ReadMemory, address: int) -> str:
    """The C string at `address`; MemoryUnavailable."""
    raw = b""
    while b"\0" not in raw and len(raw) < _MAX_NAME:
        raw += read(address + len(raw), 64 - (address + len(raw)) % 64)
    return os.fsdecode(raw.split(b"\0")[0])
