"""Compressed cores and packed traces, as systemd-coredump and others write them.

Unpacked as a stream: into an unlinked file that only we have, with holes where the zeros are,
never beyond a limit nor onto the last of the disk.
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import Any, Callable, Iterator, Optional, Protocol

from gdb_uffd.protocol.messages import Progress, TellProgress
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable

MAGICS = (
    (b"\x28\xb5\x2f\xfd", "zstd"),  # RFC 8878, 3.1.1
    (b"\x1f\x8b", "gzip"),  # RFC 1952, 2.3.1
    (b"\xfd7zXZ\x00", "xz"),  # The .xz file format, 2.1.1.1
    (b"\x04\x22\x4d\x18", "lz4"),  # LZ4 frame format
)

MAX_UNPACKED = 1 << 38
"""Bytes (256 GiB) that one file may unpack to: what is larger is taken for an attack."""
RATIO, SLACK = 1000, 64 << 20
"""How many bytes that are not of holes a byte of the compressed file may come to, and what is let
pass anyway: memory packs well, and holes cost nothing."""
UNLIMITED = -1
KEEP_FREE = 256 << 20
"""Bytes of the temporary directory's disk that are left to others."""

TOLD_EVERY = 64 << 20
"""Bytes after which it is told how far unpacking is."""

START = 512
"""Bytes at the start that tell what a file is: an ELF header, a tar archive's first block."""
_LONGEST_MAGIC = max(len(magic) for magic, _ in MAGICS)
_INPUT = 4096
"""Compressed bytes at a time.  zstd gives what they hold at once: at most 32,768 times as much."""
_FIRST = 256
"""... of the start, by which it is seen what the file is."""
_OUTPUT = 1 << 20
_BLOCK = 1 << 16  # bytes; a hole is made of whole blocks of zeros
_XZ_MEMORY = 1 << 30  # bytes; `xz -9` needs 65 MiB to unpack


def compression(start: bytes) -> str:
    """ "zstd", "gzip", "xz" or "lz4" by a file's first bytes, "" for anything else."""
    return next((name for magic, name in MAGICS if start.startswith(magic)), "")


class _Zstd:
    """zstandard's decompressor with the interface of lzma's."""

    def __init__(self, module: Any) -> None:
        self._frame = module.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes, _max_length: int) -> bytes:
        out: bytes = self._frame.decompress(data)
        return out

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        left: bytes = self._frame.unused_data
        return left

    needs_input = True


class _Gzip:
    """zlib's decompressor with the interface of lzma's."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail


def _maker(kind: str) -> Callable[[], Any]:
    if kind == "gzip":
        return _Gzip
    if kind == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    if kind == "zstd":
        zstandard = package("zstandard", kind)
        return lambda: _Zstd(zstandard)
    package("lz4", kind)
    frame = package("lz4.frame", kind)
    return lambda: frame.LZ4FrameDecompressor()


def package(name: str, kind: str) -> Any:
    """The module `name`, which `kind` needs; UffdError when it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UffdError(
            f"{kind} needs Python's package {name.split('.')[0]}, which is missing: "
            f"pip install {name.split('.')[0]}"
        ) from error


class Input(Protocol):
    """What compressed bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, fewer at the end."""
        ...


def unpack(file: Input, kind: str, shown: str) -> Iterator[bytes]:
    """The content of a compressed file, piece by piece; several frames are one after the other.

    UffdError when it is damaged or ends early.  `shown`: its name for the user.
    """
    make = _maker(kind)
    current = make()
    data = file.read(_FIRST)
    while True:
        try:
            piece = current.decompress(data, _OUTPUT)
        except Exception as error:  # every package has its own kind
            raise UffdError(f"{shown}: damaged {kind} data ({error}); get it again") from error
        data = b""
        if piece:
            yield piece
        if current.eof:
            data = _next_frame(file, current.unused_data or b"")
            if compression(data) != kind:
                return
            current = make()
        elif current.needs_input:
            data = file.read(_INPUT)
            if not data:
                break
    raise UffdError(f"{shown}: truncated: its {kind} data ends early; get it again")


def _next_frame(file: Input, data: bytes) -> bytes:
    """What follows a frame, without the zeros that may pad it (.xz file format, 2.2; tapes)."""
    data = data.lstrip(b"\0")
    while len(data) < _LONGEST_MAGIC:
        more = file.read(_INPUT)
        if not more:
            break
        data = (data + more).lstrip(b"\0")
    return data


class UnpackProgress:
    """Tells now and then how much was unpacked: whoever waits for it knows that it goes on."""

    def __init__(self, shown: str, tell: Optional[TellProgress]) -> None:
        self._shown, self._tell = shown, tell
        self._done = self._said = 0

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._done += count
        if self._tell is not None and self._done - self._said >= TOLD_EVERY:
            self._said = self._done
            self._tell(Progress("unpacking", self._shown, done=self._done))

    def end(self) -> None:
        """It is over."""
        if self._tell is not None and self._said:
            self._tell(None)


class Limit:
    """What may still come of a compressed file of `packed` bytes; `shown`: its name for the user.

    `chosen`: bytes that the user allows; 0: what is plausible (MAX_UNPACKED, RATIO), UNLIMITED: no
    limit.
    """

    def __init__(self, shown: str, packed: int, chosen: int = 0) -> None:
        self._shown, self._fixed = shown, bool(chosen)
        self.total = self.data = (1 << 63) if chosen == UNLIMITED else chosen or MAX_UNPACKED
        self._most = self.total
        if not chosen:
            self.data = min(self.data, SLACK)
            self.more(packed)

    def more(self, packed: int) -> None:
        """So many compressed bytes more."""
        if not self._fixed:
            self.data += RATIO * packed

    def take(self, size: int) -> None:
        """So many bytes come of it; UffdError."""
        self.total -= size
        if self.total < 0:
            raise self._error(f"{self._most >> 20:,} MiB")

    def write(self, size: int) -> None:
        """So many of them are no holes; UffdError."""
        self.data -= size
        if self.data < 0 and not self._fixed:
            raise self._error(f"{RATIO:,} times its size")

    def _error(self, most: str) -> UffdError:
        return UffdError(
            f"{self._shown}: unpacks to more than {most}; if you trust it, `set uffd unpack-limit "
            "MIB` (--unpack-limit) allows more"
        )


class SparseSink:
    """Writes to a file of our own, zeros as holes, up to `limit`."""

    def __init__(self, fd: int, limit: Limit) -> None:
        self._fd, self._limit = fd, limit
        self.size = 0
        self._room = 0  # bytes that may be written until the disk is looked at again

    def write(self, data: bytes) -> None:
        """Append; UffdError at the limit, OSError when the disk is nearly full."""
        self._limit.take(len(data))
        view = memoryview(data)
        at = 0
        while at < len(view):
            # Holes begin and end at multiples of a block of the file, not of the piece.
            end = min(len(view), at + _BLOCK - (self.size + at) % _BLOCK)
            block = view[at:end]
            if bytes(block) != _ZEROS[: end - at]:
                self._limit.write(len(block))
                self._write(block, self.size + at)
            at = end
        self.size += len(data)

    def _write(self, block: memoryview, offset: int) -> None:
        if self._room < len(block):
            disk = os.fstatvfs(self._fd)
            self._room = disk.f_bavail * disk.f_frsize - KEEP_FREE
            if self._room < len(block):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._room = min(self._room, 64 << 20)
        self._room -= len(block)
        while len(block):
            done = os.pwrite(self._fd, block, offset)
            block, offset = block[done:], offset + done

    def finish(self) -> None:
        """Give the file its whole size."""
        os.ftruncate(self._fd, self.size)


def begins_well(
    pieces: Iterator[bytes], length: int, check: Callable[[bytes], None]
) -> Iterator[bytes]:
    """`pieces`, the first `length` bytes of which `check` has seen (fewer where there are not so
    many) before the rest is unpacked; what it raises goes on."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= length:
            break
    check(start)
    if start:
        yield start
    yield from pieces


_ZEROS = bytes(_BLOCK)


def temporary_file() -> int:
    """A descriptor of a new file (0600) in TMPDIR that has no name.  OSError."""
    import tempfile

    directory = tempfile.gettempdir()
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    fd, name = tempfile.mkstemp(prefix="gdb-uffd-", dir=directory)
    os.unlink(name)
    return fd


def unpacked(
    path: str, kind: str, chosen: int = 0, check: Callable[[bytes], None] = lambda _start: None
) -> int:
    """A descriptor of a nameless file with the content of the compressed file `path`.  `chosen`: as
    of Limit; `check`: of its first START bytes, see begins_well.  UffdError."""
    shown = printable(path)
    fd: Optional[int] = None
    try:
        with open(path, "rb") as file:
            fd = temporary_file()
            sink = SparseSink(fd, Limit(shown, os.fstat(file.fileno()).st_size, chosen))
            for piece in begins_well(unpack(file, kind, shown), START, check):
                sink.write(piece)
            sink.finish()
        return fd
    except BaseException as error:
        if fd is not None:
            os.close(fd)
        if isinstance(error, OSError):
            import tempfile

            raise UffdError(
                f"{shown}: cannot be unpacked into {printable(tempfile.gettempdir())} "
                f"({os.strerror(error.errno or 0)}); set TMPDIR to a place with room"
            ) from error
        raise
