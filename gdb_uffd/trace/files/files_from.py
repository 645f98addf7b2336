"""Where a user says the recorded machine's files are: `set uffd files-from`, `--files-from`."""

from __future__ import annotations

import os
from typing import Iterable, List, Optional, Protocol, Sequence, Tuple

from gdb_uffd.protocol.messages import TellProgress
from gdb_uffd.trace.files.archive import ArchivePlace
from gdb_uffd.trace.files.automount import is_file
from gdb_uffd.trace.files.folder import Folder


class FilesPlace(Protocol):
    """A folder or an archive.  `problem`: why it gives nothing, or not everything; "" for none.
    `copies`: the folder that files are copied to, "" for none."""

    name: str
    problem: str
    copies: str

    def by_path(self, path: str) -> Iterable[str]:
        """Files that may be the one that had that path, the likeliest first."""
        ...

    def by_build_id(self, build_id: bytes) -> Iterable[str]:
        """Files that should have it."""
        ...

    def debug_files(self, build_id: bytes) -> Iterable[str]:
        """Files that may be the separate debug file of what has that build-id."""
        ...

    def close(self) -> None:
        """Remove what was made for it."""
        ...


class Nothing:
    """A place that is not there."""

    copies = ""

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem

    def by_path(self, _path: str) -> Sequence[str]:
        """None."""
        return ()

    def by_build_id(self, _build_id: bytes) -> Sequence[str]:
        """None."""
        return ()

    debug_files = by_build_id

    def close(self) -> None:
        """Nothing to do."""


def split(text: str) -> Tuple[str, ...]:
    """The paths of a setting's text, joined by ":" as in gdb's own, absolute, ~ resolved.

    A path that holds ":" itself (as docker's image names do) is taken whole where it is there.
    """
    found: List[str] = []
    words = text.split(":")
    while words:
        for count in range(len(words), 0, -1):
            path = os.path.abspath(os.path.expanduser(":".join(words[:count])))
            if count == 1 or os.path.lexists(path):
                break
        if any(words[:count]):
            found.append(path)
        del words[:count]
    return tuple(found)


def open_place(name: str, tell: Optional[TellProgress] = None, limit: int = 0) -> FilesPlace:
    """The place at `name`, an absolute path; never fails: its `problem` tells.  `tell` is told how
    far unpacking is; `limit`: as of compressed.Limit."""
    if os.path.isdir(name):
        if not is_file(os.path.join(name, "oci-layout")):
            return Folder(name)
    elif not os.path.isfile(name):
        there = os.path.lexists(name)
        return Nothing(name, "not a folder or archive" if there else "no such file or folder")
    return ArchivePlace(name, tell, limit)
