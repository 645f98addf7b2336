"""What happens while the process stands still: find the pages that changed, and copy them.

Only what must be done in that time is: what the pages mean for the trace is worked out afterwards.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from array import array
from bisect import bisect_left
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, UffdError
from gdb_uffd.recorder import maps
from gdb_uffd.recorder.files import RecordedFiles
from gdb_uffd.recorder.ranges import Range
from gdb_uffd.trace.files.files import FileRef

CHUNK_BYTES = 4 << 20
KEPT_CHUNKS = 64
"""Chunks (256 MiB) that may wait to be written whatever memory there is, and that are kept."""
MEMORY_SHARE = 8
"""The part of the available memory, one in so many, that may wait: a first image that fits is
copied at the memory's speed instead of the disk's.  Beyond that the process waits for the disk."""
WARM_CHUNKS = 4
"""Chunks whose memory is there from the start: a page that is not costs more than its copy."""

_PIECE = struct.Struct("<QQQ")
USER_END = (1 << 47) - PAGE_SIZE


class Gone(UffdError):
    """The process has ended, or runs another program now."""


@dataclass
class Chunk:
    """A buffer, and which consecutive pages lie in it, as C wrote it down."""

    memory: mmap.mmap
    raw: bytes = b""

    def pieces(self) -> Iterator[Tuple[int, int, int]]:
        """(start, end, 1); 0: these pages could not be read, and have no bytes in the buffer."""
        return _PIECE.iter_unpack(self.raw)

    def page(self, address: int) -> bytes:
        """The bytes of a page that is in it; KeyError."""
        offset = 0
        for start, end, has_bytes in self.pieces():
            if start <= address < end and has_bytes:
                at = offset + address - start
                return self.memory[at : at + PAGE_SIZE]
            offset += end - start if has_bytes else 0
        raise KeyError(address)


class Pool:
    """Buffers that are used again; `get` waits while all are taken."""

    def __init__(self) -> None:
        self._free: List[Chunk] = [Chunk(_buffer(True)) for _ in range(WARM_CHUNKS)]
        self._made = WARM_CHUNKS
        self._limit = max(KEPT_CHUNKS, available_bytes() // MEMORY_SHARE // CHUNK_BYTES)
        self._changed = threading.Condition()

    def ready(self) -> bool:
        """Whether `get` would not wait."""
        with self._changed:
            return bool(self._free) or self._made < self._limit

    def get(self) -> Chunk:
        """A buffer for the caller alone."""
        with self._changed:
            while not self._free and self._made >= self._limit:
                self._changed.wait()
            if self._free:
                return self._free.pop()
            self._made += 1
        return Chunk(_buffer(False))

    def give_back(self, chunk: Chunk) -> None:
        """It is not needed any more."""
        chunk.raw = b""
        with self._changed:
            if self._made > KEPT_CHUNKS:
                self._made -= 1
                chunk.memory.close()
            else:
                self._free.append(chunk)
            self._changed.notify()


def available_bytes() -> int:
    """MemAvailable of proc_meminfo(5), 0 when it does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return 0


def _buffer(warm: bool) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return mmap.mmap(-1, CHUNK_BYTES, flags=flags | (0x8000 if warm else 0))  # MAP_POPULATE


@dataclass
class RecordedMappings:
    """The mappings at one instant; kept while /proc/PID/maps stays the same text."""

    text: bytes
    lines: List[maps.Line]  # those whose pages are recorded
    hows: List[int]
    mappings: List[Mapping]
    files: Dict[str, FileRef]
    table: Any  # struct record_map[]


@dataclass
class ScanResult:
    """What a scan found, apart from the bytes.

    `states`: RECORD_TRACKED ... of each line.  `gone`: pages that held something in the scan before
    and hold nothing of their own now.  `runs`: the pages there are in mappings of which not all
    pages are recorded, sorted.
    """

    layout: RecordedMappings
    states: List[int]
    gone: List[Range]
    runs: List[Range]


class TargetProcess:
    """The process to record, through descriptors that its tracer opened."""

    def __init__(self, pid: int, mem: int, pagemap: int, maps_fd: int, uffd: int) -> None:
        """`uffd` -1: nothing tracks writes.  UffdError when it cannot, and then it is not used."""
        self.pid = pid
        self._mem, self._maps = mem, maps_fd
        self._files = RecordedFiles(self.read)
        self._layout = RecordedMappings(b"", [], [], [], {}, None)
        self._record = ffi.new("struct record *")
        self._pieces = ffi.new("struct record_piece[]", CHUNK_BYTES // PAGE_SIZE * 2)
        self._done = ffi.new("size_t *")
        self.why_full = ""
        rc = lib.record_init(self._record, pid, mem, pagemap, uffd)
        if rc < 0 and uffd >= 0:
            try:
                check(rc, self._record.error)
            except UffdError as error:
                self.why_full = str(error)
            rc = lib.record_init(self._record, pid, mem, pagemap, -1)
        check(rc, self._record.error, "recording")

    @property
    def tracked(self) -> bool:
        """Whether the kernel tracks which pages are written."""
        return int(self._record.uffd) >= 0

    def read(self, address: int, length: int) -> bytes:
        """Memory as it is; OSError."""
        return os.pread(self._mem, length, address)

    def layout(self) -> RecordedMappings:
        """The mappings now; Gone."""
        os.lseek(self._maps, 0, os.SEEK_SET)
        parts = []
        while True:
            part = os.read(self._maps, 1 << 16)
            if not part:
                break
            parts.append(part)
        text = b"".join(parts)
        if not text:
            raise Gone("the program has ended, or another one runs in its place")
        if text != self._layout.text:
            self._layout = self._understand(text)
        return self._layout

    def _understand(self, text: bytes) -> RecordedMappings:
        lines, hows, files = [], [], {}
        every = maps.parse(text)
        for line in every:
            reference = self._files.reference(line, every)
            if reference is not None:
                files[line.name] = reference
            how = maps.how(line, reference is not None)
            if how is not None:
                lines.append(line)
                hows.append(how)
        table = ffi.new("struct record_map[]", max(1, len(lines)))
        for entry, line, how in zip(table, lines, hows):
            entry.start, entry.end, entry.how = line.start, line.end, how
            entry.code = "x" in line.perms
        return RecordedMappings(text, lines, hows, maps.mappings(every), files, table)

    def scan(self) -> None:
        """Find what changed; what is written from now on counts for the next scan.  Gone."""
        layout = self.layout()
        self._record.read_all = self._pinned()
        rc = lib.record_scan(self._record, layout.table, len(layout.lines))
        if rc < 0 and not self._text_again():
            raise Gone("the program has ended")
        check(rc, self._record.error, "scanning")

    def _pinned(self) -> bool:
        """Whether memory is pinned: what a device or io_uring writes into it goes past the page
        tables, where writes are tracked."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                text = file.read()
        except OSError:
            return False
        at = text.find(b"VmPin:")
        return at >= 0 and int(text[at + 6 :].split(None, 1)[0]) != 0

    def _text_again(self) -> bool:
        os.lseek(self._maps, 0, os.SEEK_SET)
        return bool(os.read(self._maps, 1))

    def check_alive(self) -> None:
        """Gone when it has lost its memory since: what was read last may not be what it held."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                has_memory = b"\nVmSize:" in file.read()
        except OSError:
            has_memory = False
        if not has_memory:
            raise Gone("the program has ended")

    def fill(self, chunk: Chunk) -> bool:
        """Copy the next changed pages into `chunk`; False when none were left."""
        memory = ffi.from_buffer("uint8_t[]", chunk.memory, require_writable=True)
        rc = lib.record_copy(
            self._record, memory, CHUNK_BYTES, self._pieces, len(self._pieces), self._done
        )
        if rc < 0:
            check(int(rc), self._record.error, "copying")
        chunk.raw = bytes(ffi.buffer(self._pieces, self._done[0] * _PIECE.size))
        return bool(chunk.raw)

    def more(self) -> bool:
        """Whether pages are left to be copied."""
        return int(self._record.range_cursor) < int(self._record.dirty.count)

    def finish(self) -> None:
        """To be called when all is copied, before the process runs again."""
        check(lib.record_finish(self._record), self._record.error)

    def traps(self) -> List[int]:
        """Pages of code with a byte 0xCC (int3) in them, of those that `fill` copied so far."""
        return [start for start, _ in _pairs(self._record.traps)]

    def changes(self) -> ScanResult:
        """What the last scan found; to be asked before the next one."""
        layout, record = self._layout, self._record
        states = [entry.state for entry in layout.table[0 : len(layout.lines)]]
        gone = ffi.new("struct ranges *")
        try:
            rc = lib.ranges_subtract(
                gone, ffi.addressof(record, "before"), ffi.addressof(record, "present"), 0, USER_END
            )
            check(rc, None, "comparing what was there")
            gone_ranges = _pairs(gone)
        finally:
            lib.ranges_deinit(gone)
        partly = [
            (line.start, line.end)
            for line, how in zip(layout.lines, layout.hows)
            if how in (maps.FILE, maps.SHARED)
        ]
        present = ffi.addressof(record, "present")
        return ScanResult(layout, states, gone_ranges, _within(_pairs(present), partly))

    def close(self) -> None:
        """Free what C has; the descriptors are the caller's."""
        lib.record_deinit(self._record)


def _pairs(ranges: Any) -> List[Range]:
    words = array("Q")
    if ranges.count:
        words.frombytes(ffi.buffer(ranges.at, ranges.count * ffi.sizeof("struct page_range")))
    return list(zip(words[0::3], words[1::3]))


def _within(ranges: List[Range], limits: Sequence[Range]) -> List[Range]:
    """The ranges that lie in `limits`; none crosses a limit's border."""
    starts = [start for start, _ in ranges]
    out: List[Range] = []
    for low, high in limits:
        out += ranges[bisect_left(starts, low) : bisect_left(starts, high)]
    return out
