"""A whole trace as one compressed file: a tar archive of four members, packed with zstd.

The members, in this order, plain files of mode 0600: VERSION_NAME (the format's version in
decimal), `index.sqlite`, `sums`, `pages`.  Any tar reads it; nothing else is read as one.
"""

from __future__ import annotations

import os
import tarfile
from contextlib import closing
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from gdb_uffd.outputs import whole_file
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.compressed import (
    Limit,
    SparseSink,
    UnpackProgress,
    compression,
    package,
    unpack,
)
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import INDEX
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.index import check_version, open_regular
from gdb_uffd.trace.store.page_file import PAGES, SUMS

VERSION_NAME = "gdb_uffd-trace"
CORE_MARK = "gdb_uffd-core"
"""The first member of a packed core (core_packed.py)."""
MEMBERS = (VERSION_NAME, INDEX, SUMS, PAGES)
BLOCK = tarfile.BLOCKSIZE  # 512 bytes (POSIX.1, pax, "ustar Interchange Format")
SUFFIX = ".zst"
LEVEL = 3
"""zstd's own default."""

Progress = Callable[[int, int], None]
"""Called with bytes done and in all, before compression."""


def header(name: str, size: int) -> bytes:
    """The tar header of a member."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(format=tarfile.GNU_FORMAT)  # sizes of 8 GiB and more in base 256


class Pieces:
    """Reads exact lengths from an iterator of byte strings."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def some(self, length: int) -> bytes:
        """1 to `length` bytes; b"" at the end."""
        if not self._left:
            self._left = next(self._pieces, b"")
        part, self._left = self._left[:length], self._left[length:]
        return part

    def exact(self, length: int) -> bytes:
        """`length` bytes, fewer at the end."""
        out = b""
        while len(out) < length:
            part = self.some(length - len(out))
            if not part:
                break
            out += part
        return out


def packed_kind(path: str) -> str:
    """VERSION_NAME when the file `path` is a packed trace, CORE_MARK when it is a packed core, else
    ""; UffdError when it is compressed and damaged."""
    with closing(Stream(path)) as stream:
        name = _name(stream.pieces.exact(BLOCK)) if stream.kind else ""
        return name if name in (VERSION_NAME, CORE_MARK) else ""


class Stream:
    """The unpacked bytes of a compressed file; `kind` is "" for one that is not compressed.
    `limit`: what may come of it, `chosen` as of Limit."""

    def __init__(self, path: str, chosen: int = 0) -> None:
        self._file = os.fdopen(open_regular(path), "rb")
        self.kind = compression(self._file.read(8))
        self._file.seek(0)
        self.limit = Limit(printable(path), os.fstat(self._file.fileno()).st_size, chosen)
        self.pieces = Pieces(
            unpack(self._file, self.kind, printable(path)) if self.kind else iter(())
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _name(block: bytes) -> str:
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "replace").name
    except tarfile.HeaderError:
        return ""


def unpack_into(path: str, directory: str, chosen: int = 0) -> None:
    """The members of the packed trace `path` as files in `directory`; `chosen`: as of Limit.
    UffdError, one line."""
    shown = printable(path)
    with closing(Stream(path, chosen)) as stream:
        for expected in MEMBERS:
            block = stream.pieces.exact(BLOCK)
            if expected == VERSION_NAME and _name(block) != expected:
                raise UffdError(f"{shown}: not a packed trace (gdb-uffd pack makes those)")
            size = _member(block, expected, shown)
            if expected == VERSION_NAME:
                text = stream.pieces.exact(BLOCK)[:size]
                if not text.isdigit() or size > 9:
                    raise UffdError(f"{shown}: damaged packed trace (no version); get it again")
                check_version(shown, int(text))
                continue
            extract(stream, os.path.join(directory, expected), size, shown)


def _member(block: bytes, expected: str, shown: str) -> int:
    """The size of the member whose header is `block`; UffdError unless it is the one expected."""
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "replace")
    except tarfile.HeaderError as error:
        raise UffdError(f"{shown}: damaged packed trace ({error}); get it again") from error
    if info.name != expected or info.type != tarfile.REGTYPE or info.size < 0:
        raise UffdError(
            f"{shown}: damaged packed trace: {printable(info.name)!r} is where {expected!r} "
            "should be"
        )
    return info.size


def extract(
    stream: Stream, target: str, size: int, shown: str, told: Optional[UnpackProgress] = None
) -> None:
    """The next `size` bytes as the new file `target`, and the padding after them."""
    pieces = stream.pieces
    if size > stream.limit.total:
        stream.limit.take(size)  # its end is not waited for
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        sink = SparseSink(fd, stream.limit)
        left = size
        while left:
            part = pieces.some(left)
            if not part:
                raise UffdError(f"{shown}: truncated packed file; get it again")
            sink.write(part)
            left -= len(part)
            if told is not None:
                told.add(len(part))
        sink.finish()
        pieces.exact(-size % BLOCK)
    finally:
        os.close(fd)


Source = Tuple[str, int]
"""The first bytes of a file: path, how many."""


def archive(sources: Dict[str, List[Source]]) -> Iterator[bytes]:
    """The archive, piece by piece: each of MEMBERS made of the files given for it."""
    version = str(form.VERSION).encode()
    yield header(VERSION_NAME, len(version)) + version.ljust(BLOCK, b"\0")
    for name in MEMBERS[1:]:
        size = sum(length for _, length in sources[name])
        yield header(name, size)
        for path, length in sources[name]:
            yield from _content(path, length)
        yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)  # the end (POSIX.1, pax)


def _content(path: str, length: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while length:
            part = file.read(min(length, 1 << 20))
            if not part:
                raise UffdError(f"{printable(path)}: was cut short while it was read")
            length -= len(part)
            yield part


def write(
    path: str, pieces: Iterator[bytes], total: int, progress: Optional[Progress] = None
) -> int:
    """Write `pieces`, compressed, as the file `path`, 0600, whole or not at all; its size.
    OSError."""
    zstandard = package("zstandard", "zstd")
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, threads=-1)
    with whole_file(path) as fd, os.fdopen(os.dup(fd), "wb") as file:
        done = 0
        with compressor.stream_writer(file, closefd=False) as writer:
            for piece in pieces:
                writer.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
        file.flush()
        return file.tell()


def unpack_as(target: str, fill: Callable[[str], None]) -> str:
    """Make the directory `target`, whole or not at all: `fill` is given one to write into; its
    path.  UffdError, and nothing is left, when `fill` raises it or `target` cannot be written."""
    target = os.path.abspath(target)
    shown = printable(target)
    if os.path.lexists(target):
        raise UffdError(f"{shown}: exists already; remove it or choose another name")
    try:
        with closing(Scratch("unpack", beside=target)) as scratch:
            fill(scratch.path)
            scratch.become(target)
    except OSError as error:
        raise UffdError(
            f"{shown}: cannot be written ({os.strerror(error.errno or 0)}); nothing is left of it"
        ) from error
    return target
