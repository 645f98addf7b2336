"""Where the recorded process's files are looked for when they are not at their own paths: below
another root directory, by build-id in debug directories, from debuginfod servers.

What is found by a path is checked as ever (trace/files.py); what is found by a build-id has it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterator, List, Tuple

from gdb_uffd.trace import debuginfod

DEBUG_DIRECTORIES = ("/usr/lib/debug", "/usr/lib")
"""Folders with a `.build-id` folder: gdb's own default, and where Fedora's packages put the links
to what they installed."""

_BUILD_ID_MIN = 2  # bytes: the first is a folder's name, the others the file's


@dataclass(frozen=True)
class Search:
    """`libraries`: folders as gdb's `solib-search-path`.
    `sysroot`: a folder that holds the recorded machine's files under their paths, "" for none.
    `debug_directories`: as gdb's `debug-file-directory`.  `servers`: URLs of debuginfod servers
    that may be asked."""

    sysroot: str = ""
    debug_directories: Tuple[str, ...] = DEBUG_DIRECTORIES
    servers: Tuple[str, ...] = ()
    libraries: Tuple[str, ...] = ()

    def by_path(self, path: str) -> List[str]:
        """Where a file with that path may be, the likeliest first."""
        below = self.sysroot.rstrip("/") + path if self.sysroot and path[:1] == "/" else ""
        found = [below, path] if below and below != path else [path]
        for folder in self.libraries:  # in gdb's order (solib.c, solib_find_1)
            found += [folder.rstrip("/") + path, os.path.join(folder, os.path.basename(path))]
        return found

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
