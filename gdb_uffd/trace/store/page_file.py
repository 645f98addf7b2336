"""The page file and its checksums: `pages` and `sums` of a trace (docs/trace-format.md).

Only ever appended to.  Equal pages are stored once: an open-addressed table of slots, keyed by the
CRC-32 that every page has anyway, finds the candidate, and its bytes are compared.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from array import array
from typing import List, Optional, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.trace.source import SLOT_UNAVAILABLE, SLOT_ZERO

PAGES, SUMS = "pages", "sums"
MAGIC = b"gdb_uffd pages\n\0"
HEADER = struct.Struct("<16sI16sI")
"""Magic, format version (as user_version), trace id, CRC-32 of what precedes it."""

ZERO_PAGE = bytes(PAGE_SIZE)
ZERO_SUM = zlib.crc32(ZERO_PAGE)
PROBES = 64
"""Places tried for one checksum: pages made to collide cost room, not time."""


def header_page(version: int, trace_id: bytes) -> bytes:
    """Slot 0."""
    head = struct.pack("<16sI16s", MAGIC, version, trace_id)
    return (head + struct.pack("<I", zlib.crc32(head))).ljust(PAGE_SIZE, b"\0")


def write_all(fd: int, data: "memoryview | bytes", offset: int) -> None:
    """pwrite(2) until all is written; OSError (a short write at the end of the disk goes on to
    the error)."""
    view = memoryview(data)
    while len(view):
        done = os.pwrite(fd, view, offset)
        if done <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[done:], offset + done


class PageFile:
    """Appends pages.  `count`: slots in use, slot 0 included."""

    def __init__(self, pages_fd: int, sums_fd: int) -> None:
        self._pages, self._sums = pages_fd, sums_fd
        self._summed = 0  # checksums that are in the file
        self._written = 0  # slots whose pages are in the file
        self.sums = array("I")
        self._table = array("I", bytes(4 * 4096))
        self._mask = 4095

    @property
    def count(self) -> int:
        """Slots that have a page."""
        return len(self.sums)

    def start(self, header: bytes) -> None:
        """Write slot 0 of an empty file."""
        self._append(memoryview(header), [zlib.crc32(header)])

    def store(self, data: memoryview, old: "array[int]") -> "array[int]":
        """The slots of the whole pages in `data` (a memoryview of bytes).

        `old`: the slot that each page had before, tried first.  OSError when the disk is full or
        gone; the pages written until then stay, unreferred to.
        """
        found = array("I")
        crc32, sums = zlib.crc32, self.sums
        run_start = run_end = 0  # bytes of `data` that are new, not written yet
        fresh: List[int] = []  # their checksums
        table, mask = self._table, self._mask
        try:
            for index, before in enumerate(old):
                at = index << 12
                page = data[at : at + PAGE_SIZE]
                crc = crc32(page)
                if crc == ZERO_SUM and bytes(page) == ZERO_PAGE:
                    found.append(SLOT_ZERO)
                    continue
                if 0 < before < self._written and sums[before] == crc and self._is(before, page):
                    found.append(before)
                    continue
                place, room = crc & mask, PROBES
                slot = table[place]
                while slot:
                    if sums[slot] == crc:
                        if slot >= self._written:
                            self._append(data[run_start:run_end], fresh)
                            run_start, fresh = run_end, []
                        if self._is(slot, page):
                            break
                    room -= 1
                    if not room:
                        slot = 0
                        break
                    place = (place + 1) & mask
                    slot = table[place]
                if slot:
                    found.append(slot)
                    continue
                if at != run_end:
                    self._append(data[run_start:run_end], fresh)
                    run_start, fresh = at, []
                run_end = at + PAGE_SIZE
                slot = len(sums)
                if slot == SLOT_UNAVAILABLE:
                    raise OSError(errno.EFBIG, "the trace holds 2^32 pages, as many as it can")
                if room:
                    table[place] = slot
                fresh.append(crc)
                sums.append(crc)
                found.append(slot)
                if 2 * slot > mask:
                    self._grow()
                    table, mask = self._table, self._mask
            self._append(data[run_start:run_end], fresh)
        except BaseException:
            self._forget_from(self._written)
            raise
        return found

    def _is(self, slot: int, page: memoryview) -> bool:
        return os.pread(self._pages, PAGE_SIZE, slot * PAGE_SIZE) == bytes(page)

    def _append(self, data: memoryview, sums: List[int]) -> None:
        """Write the pages that follow those written; `store` has counted them already."""
        if not sums:
            return
        write_all(self._pages, data, self._written * PAGE_SIZE)
        self._written += len(sums)
        if len(self.sums) < self._written:
            self.sums.extend(sums)

    def _grow(self) -> None:
        size = 4 * (self._mask + 1)
        mask = size - 1
        table = array("I", bytes(4 * size))
        sums = self.sums
        for slot in range(1, len(sums)):
            place = sums[slot] & mask
            for _ in range(PROBES):
                if not table[place]:
                    table[place] = slot
                    break
                place = (place + 1) & mask
        self._table, self._mask = table, mask

    def _forget_from(self, count: int) -> None:
        """The slots from `count` on hold nothing: a failed write."""
        gone = range(count, len(self.sums))
        if not gone:
            return
        del self.sums[count:]
        self._mask = max(4095, self._mask >> 2)
        self._grow()

    def flush(self) -> None:
        """Everything on the disk: pages, then checksums.  OSError."""
        if self._summed < self.count:
            os.fdatasync(self._pages)
            write_all(self._sums, self.sums[self._summed :].tobytes(), 4 * self._summed)
            os.fdatasync(self._sums)
            self._summed = self.count

    def truncate(self, count: int) -> None:
        """Give back what lies behind slot `count` (of a snapshot that was not completed)."""
        os.ftruncate(self._pages, count * PAGE_SIZE)
        os.ftruncate(self._sums, 4 * count)


def read_header(page: bytes) -> Optional[Tuple[int, bytes]]:
    """(version, trace id) of slot 0; None when it is damaged."""
    if len(page) < HEADER.size:
        return None
    magic, version, trace_id, check = HEADER.unpack_from(page)
    if magic != MAGIC or check != zlib.crc32(page[: HEADER.size - 4]):
        return None
    return version, trace_id
