"""The command line of the recorded process, from its stack.

The kernel lays out, from the stack pointer that a program starts with upward: argc, the pointers of
argv, 0, those of the environment, 0, the auxiliary vector, then the bytes that AT_RANDOM points to
(fs/binfmt_elf.c, create_elf_tables).  NT_PRPSINFO has only 80 characters of it.
"""

from __future__ import annotations

import struct
from typing import Callable, List, Optional

from gdb_uffd.model import MemoryUnavailable
from gdb_uffd.trace.source import Snapshot

_AT_RANDOM = 25  # <elf.h>
_ABOVE = 4096  # between the end of the vector and those bytes: a word or two of padding, names
_POINTERS_MAX = 1 << 17
_BYTES_MAX = 1 << 17  # of one argument, as of all: MAX_ARG_STRLEN, <linux/binfmts.h>
_CHUNK = 4096


def command_line(snapshot: Snapshot) -> List[bytes]:
    """The arguments, the program's name first; [] where the stack does not tell them."""
    try:
        return _command_line(snapshot)
    except (MemoryUnavailable, ValueError, struct.error):
        return []


def _command_line(snapshot: Snapshot) -> List[bytes]:
    pairs = list(struct.iter_unpack("<QQ", snapshot.auxv[: len(snapshot.auxv) & ~15]))
    random = next((value for key, value in pairs if key == _AT_RANDOM), 0)
    if not random or not pairs:
        return []
    lowest = random - _ABOVE - len(snapshot.auxv)
    data = _readable(snapshot, lowest, random)
    at = data.rfind(snapshot.auxv[: 16 * min(4, len(pairs))])
    if at < 0:
        return []
    words = _Words(snapshot, random - len(data) + at)
    words.down_to(lambda word, _count: word == 0)
    words.down_to(lambda word, _count: word == 0)  # the environment
    pointers = words.down_to(lambda word, count: word == count)
    out: List[bytes] = []
    for pointer in pointers:
        out.append(_string(snapshot, pointer))
        if sum(map(len, out)) > _BYTES_MAX:
            break
    return out


class _Words:
    """Words of the stack, read downward from `end`."""

    def __init__(self, snapshot: Snapshot, end: int) -> None:
        self._snapshot, self._end = snapshot, end

    def down_to(self, what: Callable[[int, int], bool]) -> List[int]:
        """Those above the first word of which what(WORD, COUNT) holds, the lowest first; COUNT are
        the words above it."""
        found: List[int] = []
        while len(found) < _POINTERS_MAX:
            self._end -= 8
            word = int.from_bytes(self._snapshot.read(self._end, 8), "little")
            if what(word, len(found)):
                return found[::-1]
            found.append(word)
        raise ValueError("no end of the pointers")


def _readable(snapshot: Snapshot, start: int, end: int) -> bytes:
    """As much of [start, end) as can be read, up to its end."""
    out = b""
    while end - len(out) > start:
        step = min(_CHUNK, end - len(out) - start)
        try:
            out = snapshot.read(end - len(out) - step, step) + out
        except MemoryUnavailable:
            break
    return out


def _string(snapshot: Snapshot, address: int) -> bytes:
    out = b""
    while len(out) < _BYTES_MAX:
        step = _CHUNK - (address + len(out)) % _CHUNK
        chunk = snapshot.read(address + len(out), step)
        before, end, _ = chunk.partition(b"\0")
        out += before
        if end:
            break
    return out


def in_a_line(arguments: List[bytes], most: Optional[int] = None) -> str:
    """The arguments as one text, cut after `most` characters."""
    text = b" ".join(arguments).decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if most is None or len(shown) <= most else shown[: most - 3] + "..."
