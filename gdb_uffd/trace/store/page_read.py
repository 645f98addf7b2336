"""Reading the page file of a trace: every page is compared with its checksum."""

from __future__ import annotations

import mmap
import os
import zlib
from array import array
from typing import List, Sequence

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.terminal import printable
from gdb_uffd.trace.source import SLOT_UNAVAILABLE, SLOT_ZERO, bad_page
from gdb_uffd.trace.store.page_file import SUMS, ZERO_PAGE

_AT_ONCE = 256  # pages of one read


class BadPage(Exception):
    """Page `index` of those asked for cannot be had; `reason` in the user's words."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason


class PageData:
    """The page file as far as the trace goes; its descriptor lives as long as this object.

    `data` maps it for the pager, `sums` are the checksums of its slots (native u32; as many as
    there are pages).  Reading goes through the descriptor: a file that is cut short while in use
    gives an error then, where touching the mapping would be SIGBUS.
    """

    def __init__(self, path: str, pages_fd: int, sums_fd: int, slots: int) -> None:
        """`slots`: how many the index speaks of.  `pages_fd` becomes this object's; OSError."""
        self.path = path
        self._fd = pages_fd
        there = os.fstat(pages_fd).st_size // PAGE_SIZE
        summed = os.fstat(sums_fd).st_size // 4
        count = min(slots, there, summed)
        self.missing = slots - count  # slots that the index speaks of and that are not there
        self.sums: Sequence[int] = _read(sums_fd, 4 * count).cast("I")
        if count:
            self.data = mmap.mmap(pages_fd, count * PAGE_SIZE, access=mmap.ACCESS_READ)
        else:
            self.data, self.sums = mmap.mmap(-1, PAGE_SIZE), array("I", [0])

    def __del__(self) -> None:
        os.close(self._fd)

    def read(self, slots: Sequence[int]) -> bytes:
        """The pages of `slots`, one after the other; BadPage."""
        parts: List[bytes] = []
        index, count = 0, len(slots)
        while index < count:
            slot = slots[index]
            if slot == SLOT_ZERO:
                parts.append(ZERO_PAGE)
                index += 1
                continue
            run = 1
            while run < _AT_ONCE and index + run < count and slots[index + run] == slot + run:
                run += 1
            parts.append(self._run(index, slot, run))
            index += run
        return b"".join(parts)

    def _run(self, index: int, slot: int, run: int) -> bytes:
        """`run` consecutive slots."""
        sums = self.sums
        if slot + run > len(sums):
            first = max(0, len(sums) - slot)
            raise BadPage(index + first, self.why(slot + first))
        raw = os.pread(self._fd, run * PAGE_SIZE, slot * PAGE_SIZE)
        view = memoryview(raw)
        for i in range(run):
            if zlib.crc32(view[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]) != sums[slot + i]:
                raise BadPage(index + i, self.why(slot + i))
        return raw

    def why(self, slot: int) -> str:
        """Why the page of `slot` is not shown."""
        if slot == SLOT_UNAVAILABLE:
            return "could not be read when it was recorded"
        if slot >= len(self.sums):
            shown = printable(self.path)
            return (
                f"{shown}/pages or {shown}/{SUMS} ends before slot {slot}: the trace is truncated "
                f"(gdb-uffd verify {shown} lists all such pages)"
            )
        return bad_page(printable(self.path), slot)


def _read(fd: int, length: int) -> memoryview:
    """The first `length` bytes; OSError when they are not there any more."""
    buffer = bytearray(length)
    at = 0
    while at < length:
        done = os.preadv(fd, [memoryview(buffer)[at : at + (1 << 30)]], at)
        if not done:
            raise OSError("its checksums were cut off while they were read")
        at += done
    return memoryview(buffer)
