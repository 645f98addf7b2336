"""Which pages of a core are holes of its file: they read as zeros, and need no bytes to be fed.

The kernel leaves out what a process never touched, which keeps a core sparse (lseek(2), SEEK_HOLE).
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.trace.source import FILE, Segment

SEGMENT = 1 << 20
"""Bytes of the smallest segment that is looked at."""

LEAST = 1 << 16
"""Bytes of the smallest hole that is told of: each is a region of its own."""

MOST = 4096
"""Holes that are told of."""


def ranges(
    segments: Sequence[Segment], address: Callable[[Any], int], lowest: int
) -> List[Tuple[int, int]]:
    """Addresses [start, end) of pages of zeros.  `address`: where a segment's data is mapped."""
    out: List[Tuple[int, int]] = []
    files: Dict[int, Optional[int]] = {}
    for segment in segments:
        large = segment.end - segment.start >= SEGMENT and segment.start >= lowest
        if segment.kind != FILE or segment.patch is not None or not large:
            continue
        if id(segment.data) not in files:
            files[id(segment.data)] = file_of(address(segment.data))
        fd, offset = files[id(segment.data)], segment.offset
        end = min(offset + segment.end - segment.start, segment.data_end)
        if fd is not None:
            moved = segment.start - offset
            out += [(low + moved, high + moved) for low, high in holes(fd, offset, end)]
        if len(out) >= MOST:
            return out[:MOST]
    return out


def file_of(address: int) -> Optional[int]:
    """A descriptor of ours for the file that is mapped at `address`; None when there is none.

    Python's mmap keeps one, and does not tell which.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            words = line.split(None, 5)
            start, _, end = words[0].partition("-")
            if not int(start, 16) <= address < int(end, 16):
                continue
            if len(words) < 6:
                return None
            return _open(words[5].rstrip("\n"), int(words[4]))
    return None


def _open(path: str, inode: int) -> Optional[int]:
    for number in os.listdir("/proc/self/fd"):
        try:
            found = os.readlink(f"/proc/self/fd/{number}") == path
            if found and os.fstat(int(number)).st_ino == inode:
                return int(number)
        except OSError:  # closed meanwhile
            continue
    return None


def holes(fd: int, start: int, end: int) -> Iterator[Tuple[int, int]]:
    """[low, high) offsets of whole pages, counted from `start`, that lie in holes of the file."""
    at = start
    while at < end:
        try:
            low = os.lseek(fd, at, os.SEEK_HOLE)
            if low >= end:
                return
            high = os.lseek(fd, low, os.SEEK_DATA)
        except OSError:  # ENXIO: no data behind it, so that it is all a hole; else it cannot tell
            return
        first = start + -(-(low - start) // PAGE_SIZE) * PAGE_SIZE
        last = start + (min(high, end) - start) // PAGE_SIZE * PAGE_SIZE
        if last - first >= LEAST:
            yield first, last
        at = high
