"""Where the recorded process's files are looked for when they are not at their own paths: in places
that the user names, below another root directory, by build-id in debug directories, from debuginfod
servers.

What is found is checked as ever (trace/files/files.py).
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import Dict, Iterator, List, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages import TellProgress
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files import debuginfod
from gdb_uffd.trace.files.files import without_mark
from gdb_uffd.trace.files.files_from import FilesPlace, open_place

DEBUG_DIRECTORIES = ("/usr/lib/debug", "/usr/lib")
"""Folders with a `.build-id` folder: gdb's own default, and where Fedora's packages put the links
to what they installed."""

_BUILD_ID_MIN = 2  # bytes: the first is a folder's name, the others the file's


@dataclass(frozen=True)
class FileSearch:
    """`libraries`: folders as gdb's `solib-search-path`.
    `sysroot`: a folder that holds the recorded machine's files under their paths, "" for none.
    `debug_directories`: as gdb's `debug-file-directory`.  `servers`: URLs of debuginfod servers
    that may be asked.  `files_from`: folders and archives (files_from.py), asked first.
    `tell`: as TellProgress.  `names`: folders of ours, and what the user calls them.
    `unpack_limit`: as of compressed.Limit.  `close` ends it."""

    sysroot: str = ""
    debug_directories: Tuple[str, ...] = DEBUG_DIRECTORIES
    servers: Tuple[str, ...] = ()
    libraries: Tuple[str, ...] = ()
    files_from: Tuple[str, ...] = ()
    tell: Optional[TellProgress] = field(default=None, compare=False, repr=False)
    names: Tuple[Tuple[str, str], ...] = ()
    unpack_limit: int = 0
    _places: List[FilesPlace] = field(default_factory=list, init=False, compare=False, repr=False)
    _clients: List[debuginfod.DebuginfodClient] = field(
        default_factory=list, init=False, compare=False, repr=False
    )
    _unasked: Dict[str, None] = field(default_factory=dict, init=False, compare=False, repr=False)

    def places(self) -> List[FilesPlace]:
        """`files_from`, opened once."""
        if len(self._places) < len(self.files_from):
            self._places[:] = [
                open_place(os.path.abspath(name), self.tell, self.unpack_limit)
                for name in self.files_from
            ]
        return self._places

    def unasked(self) -> List[str]:
        """The names of files that are missing, and that no server was asked for."""
        return [printable(name) for name in self._unasked]

    def problems(self) -> List[str]:
        """A line for each of `files_from` and `servers` that gave nothing, or not everything."""
        said = [f"{printable(p.name)}: {p.problem}" for p in self._places if p.problem]
        return said + [printable(line) for client in self._clients for line in client.problems]

    def spoken(self, path: str) -> str:
        """`path` for the user: of a copy, from where it was copied, as ARCHIVE:PATH."""
        copies = [(p.copies, p.name) for p in self._places if p.copies]
        for folder, name in (*self.names, *copies):
            if path.startswith(folder + "/"):
                return printable(f"{name}:{path[len(folder) :]}")
        return printable(path)

    def brought(self, path: str) -> bool:
        """Whether the file `path` came with the trace, or for it: from an archive or a folder that
        the user names for it, or a download; and is no file of this machine's own."""
        real = os.path.realpath(path)
        copies = [p.copies for p in self._places] + [folder for folder, _ in self.names]
        folders = [*copies, *self.files_from, self.sysroot, debuginfod.cache_folder()]
        return any(real.startswith(os.path.realpath(f).rstrip("/") + "/") for f in folders if f)

    def by_path(self, path: str) -> Iterator[str]:
        """Where a file with that path may be, the likeliest first."""
        if path[:1] == "/":
            plain = without_mark(path)
            for place in self.places():
                yield from place.by_path(plain)
        below = self.sysroot.rstrip("/") + path if self.sysroot and path[:1] == "/" else ""
        if below and below != path:
            yield below
        yield path
        for folder in self.libraries:  # in gdb's order (solib.c, solib_find_1)
            yield folder.rstrip("/") + path
            yield os.path.join(folder, os.path.basename(path))

    def by_build_id(self, build_id: bytes, path: str = "") -> Iterator[str]:
        """Existing files that should have it, those of debuginfod last.  `path`: where it was.

        Not the `.debug` files beside them: these have the sections' headers without the bytes.
        """
        if len(build_id) < _BUILD_ID_MIN:
            return
        for place in self.places():
            yield from place.by_build_id(build_id)
        yield from self._by_link(build_id, "")
        yield from self._fetched(build_id, path, debuginfod.EXECUTABLE)

    def _fetched(self, build_id: bytes, path: str, kind: str) -> Iterator[str]:
        if not self._clients:  # without a server, what is in the cache serves all the same
            self._clients.append(debuginfod.DebuginfodClient(self.servers, self.tell))
        for client in self._clients:
            found = client.get(build_id, os.path.basename(path), kind)
            if found:
                yield found
            elif not self.servers and kind == debuginfod.EXECUTABLE:
                self._unasked[os.path.basename(path)] = None

    def debug_files(self, build_id: bytes, fetch: bool = False) -> Iterator[str]:
        """Existing files that may be the separate debug file of what has that build-id; `fetch`:
        of debuginfod servers as well."""
        if len(build_id) < _BUILD_ID_MIN:
            return
        for place in self.places():
            yield from place.debug_files(build_id)
        yield from self._by_link(build_id, ".debug")
        if fetch:
            yield from self._fetched(build_id, "debug file", debuginfod.DEBUGINFO)

    def _by_link(self, build_id: bytes, end: str) -> Iterator[str]:
        name = build_id.hex()
        tail = os.path.join(".build-id", name[:2], name[2:] + end)
        roots = [self.sysroot.rstrip("/"), ""] if self.sysroot else [""]
        for root in roots:
            for directory in self.debug_directories:
                path = os.path.join(root + os.path.abspath(directory), tail)
                if os.path.exists(path):
                    yield os.path.realpath(path)

    def close(self) -> None:
        """Remove what was copied out of archives.  Idempotent."""
        while self._places:
            self._places.pop().close()
