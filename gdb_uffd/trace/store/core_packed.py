"""A core with the files that its process had mapped, as one compressed file: a tar archive packed
with zstd, as packed.py has it for traces.

The members: MARK (the format's version in decimal), `core`, then files below `root/`, where each
has the path that it had on the recorded machine, separate debug files by build-id (gdb manual,
"Separate Debug Files").  Any tar unpacks it, and any gdb uses it: `set sysroot root`.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
import weakref
from contextlib import closing
from dataclasses import replace
from typing import Optional, Tuple

from gdb_uffd.protocol.messages import TellProgress
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.core import CoreSnapshot
from gdb_uffd.trace.core.core_trace import CoreTrace
from gdb_uffd.trace.files.archive import MAX_DEPTH
from gdb_uffd.trace.files.compressed import UnpackProgress
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.files.tar import MAX_PATH, path_parts
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.store.packed import BLOCK, CORE_MARK, Pieces, Stream, extract, unpack_as

VERSION = 1
CORE, ROOT = "core", "root"
MAX_FILES = 1 << 16


class PackedCore(CoreTrace):
    """A packed core, unpacked into a scratch folder that goes when the trace is closed."""

    def __init__(
        self, path: str, executable: Optional[str] = None, search: Optional[FileSearch] = None
    ) -> None:
        """UffdError."""
        try:
            scratch = Scratch("core")
            self._remove = weakref.finalize(self, scratch.close)
            search = search or FileSearch()
            unpack_core_into(path, scratch.path, search.unpack_limit, search.tell)
            root = os.path.join(scratch.path, ROOT)
            self.found_in = replace(
                search, files_from=(root, *search.files_from), names=((root, path), *search.names)
            )
            super().__init__(os.path.join(scratch.path, CORE), executable, self.found_in, name=path)
        except OSError as error:
            self._remove()
            raise UffdError(
                f"{printable(path)}: cannot be unpacked into {printable(tempfile.gettempdir())} "
                f"({os.strerror(error.errno or 0)}); set TMPDIR to a place with room"
            ) from error
        except BaseException:
            self._remove()
            raise

    def snapshot(self, number: int) -> CoreSnapshot:
        """As CoreTrace."""
        made = super().snapshot(number)
        self.warnings = self.found_in.problems()
        return made

    def close(self) -> None:
        """Remove what was unpacked, too.  Idempotent."""
        super().close()
        self.found_in.close()
        self._remove()


def unpack_core_into(
    path: str,
    directory: str,
    chosen: int = 0,
    tell: Optional[TellProgress] = None,
) -> None:
    """The members of the packed core `path` below `directory`; `chosen`: as of
    compressed.Limit.  UffdError, one line."""
    shown = printable(path)
    told = UnpackProgress(shown, tell)
    with closing(Stream(path, chosen)) as stream:
        count, name = 0, ""
        while True:
            block = stream.pieces.exact(BLOCK)
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                break
            except (tarfile.HeaderError, ValueError) as error:
                raise UffdError(f"{shown}: damaged packed core ({error}); get it again") from error
            count += 1
            if info.size < 0 or count > MAX_FILES:
                raise UffdError(f"{shown}: more than {MAX_FILES:,} files in it; not opened")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = _long_name(stream.pieces, info.size, shown)
                continue
            if count == 1:
                _check_version(stream.pieces, info, shown)
                continue
            target = _target(directory, name or info.name, info, shown)
            extract(stream, target, info.size, shown, told)
            with contextlib.suppress(OverflowError):
                os.utime(target, (info.mtime, info.mtime))
            name = ""
    told.end()
    if not os.path.exists(os.path.join(directory, CORE)):
        raise UffdError(f"{shown}: truncated packed core; get it again")


def _long_name(pieces: Pieces, size: int, shown: str) -> str:
    """GNU tar manual, "Basic Tar Format": the next member's name as content."""
    if size > MAX_PATH + 1:
        raise UffdError(f"{shown}: damaged packed core (a name of {size} bytes); get it again")
    raw = pieces.exact(size + -size % BLOCK)
    return os.fsdecode(raw[:size].split(b"\0")[0])


def _check_version(pieces: Pieces, info: tarfile.TarInfo, shown: str) -> None:
    text = pieces.exact(BLOCK)[: info.size]
    if info.name != CORE_MARK or info.size > 9 or not text.isdigit():
        raise UffdError(f"{shown}: damaged packed core (no version); get it again")
    if int(text) != VERSION:
        raise UffdError(
            f"{shown}: packed by a newer gdb_uffd (version {int(text)}); update this one"
        )


def _target(directory: str, name: str, info: tarfile.TarInfo, shown: str) -> str:
    """Where a member goes; UffdError for one that a packed core has not."""
    parts: Optional[Tuple[str, ...]] = path_parts(name)
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    known = parts == (CORE,) or (parts and len(parts) > 1 and parts[0] == ROOT)
    if not parts or not known or not plain or len(parts) > MAX_DEPTH:
        raise UffdError(
            f"{shown}: damaged packed core: {printable(name)!r} in it is no part of one"
        )
    target = os.path.join(directory, *parts)
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    return target


def unpack_core(path: str, target: str, chosen: int = 0) -> str:
    """Make the directory `target` of the packed core `path`, with `core` and `root` in it; its
    path.  UffdError, and nothing is left, when that is no whole one."""
    return unpack_as(target, lambda made: unpack_core_into(path, made, chosen))
