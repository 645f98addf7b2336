"""An archive in which recorded files are looked for.  Those that are wanted are copied
into a scratch folder, which goes when the search does."""

from __future__ import annotations

import os
import weakref
from typing import Dict, Iterator, List, Optional, Tuple

from gdb_uffd.protocol.messages import TellProgress
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import Buffer
from gdb_uffd.trace.files.compressed import Limit, SparseSink
from gdb_uffd.trace.files.folder import DEBUG, FileIndex, links, twins
from gdb_uffd.trace.files.image import Archive, ArchivedFile, find, walk
from gdb_uffd.trace.scratch import Scratch

MAX_COPIED = 16 << 30
"""Bytes that are copied out of one archive."""


MAX_DEPTH = 200  # folders; Python makes and removes them by recursion


class ArchivePlace:
    """files_from.FilesPlace over an archive, or a folder with an OCI image in it.  It is read when
    the first file is looked for."""

    def __init__(self, name: str, tell: Optional[TellProgress] = None, limit: int = 0) -> None:
        self.name, self.problem = name, ""
        self._tell, self._limit = tell, limit
        self._archive: Optional[Archive] = None
        self._indices: Dict[int, FileIndex] = {}
        self._copied: Dict[Tuple[int, int], str] = {}  # by where the bytes lie
        self._left = MAX_COPIED
        self.copies = ""
        self._finalizer: Optional[weakref.finalize[..., ArchivePlace]] = None

    def _trees(self) -> List[Tuple[int, Dict[str, object]]]:
        if self._archive is None and not self.problem:
            try:
                self._archive = Archive(self.name, self._tell, self._limit)
            except (UffdError, OSError) as error:
                prefix = f"{printable(self.name)}: "
                self.problem = (
                    str(error)[len(prefix) :] if str(error).startswith(prefix) else str(error)
                )
        return list(enumerate(self._archive.trees)) if self._archive is not None else []

    def by_path(self, path: str) -> Iterator[str]:
        """The file with that path in each image."""
        for number, tree in self._trees():
            for each in twins(path):
                yield from self._copy(number, each, find(tree, each))

    def by_build_id(self, build_id: bytes) -> Iterator[str]:
        """Files that should have it."""
        yield from self._identified(build_id, "")

    def debug_files(self, build_id: bytes) -> Iterator[str]:
        """Files that may be the separate debug file of what has that build-id."""
        yield from self._identified(build_id, DEBUG)

    def _identified(self, build_id: bytes, end: str) -> Iterator[str]:
        for number, tree in self._trees():
            for path in links(build_id, end):
                yield from self._copy(number, path, find(tree, path))
            index = self._index(number, tree)
            for path in index.identified(build_id, end):
                yield from self._copy(number, path, find(tree, path))
            if index.cut:
                self.problem = "is too large to look into all of its files"

    def _index(self, number: int, tree: Dict[str, object]) -> FileIndex:
        if number not in self._indices:
            leaves = dict(walk(tree))

            def read(path: str, length: int) -> Optional[Buffer]:
                content = leaves[path].content()
                return bytes(content[:length] if length >= 0 else content)

            self._indices[number] = FileIndex(iter(leaves), read)
        return self._indices[number]

    def _copy(self, number: int, path: str, found: object) -> Iterator[str]:
        """The file as one of the file system."""
        if not isinstance(found, ArchivedFile):
            return
        content = found.content()
        key = (id(found.archive), found.member.offset)
        if key not in self._copied:
            self._copied[key] = ""
            if not 0 < len(content) <= self._left:
                return
            self._left -= len(content)
            try:
                target = self._target(number, found.member.parts)
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    sink = SparseSink(fd, Limit(printable(self.name), 0, len(content)))
                    sink.write(bytes(content))
                    sink.finish()
                finally:
                    os.close(fd)
                os.utime(target, (found.member.mtime, found.member.mtime))
            except (OSError, OverflowError, ValueError, UffdError) as error:
                self.problem = f"{printable(path)} cannot be copied out of it ({error})"
                return
            self._copied[key] = target
        if self._copied[key]:
            yield self._copied[key]

    def _target(self, number: int, parts: Tuple[str, ...]) -> str:
        if len(parts) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} folders deep")
        if not self.copies:
            scratch = Scratch("files")
            self._finalizer = weakref.finalize(self, scratch.close)
            self.copies = os.path.join(scratch.path, os.path.basename(self.name.rstrip("/")))
        several = self._archive is not None and len(self._archive.trees) > 1
        target = os.path.join(self.copies, *([str(number)] if several else []), *parts)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        return target

    def close(self) -> None:
        """Remove the copies.  Idempotent."""
        if self._archive is not None:
            self._archive.close()
        if self._finalizer is not None:
            self._finalizer()
        self._indices.clear()
