"""The arguments that a process was started with, from the top of its main stack.

fs/binfmt_elf.c, create_elf_tables: upwards lie argc, the pointers of argv and a null, those of the
environment and a null, the auxiliary vector, and somewhere above it AT_RANDOM's bytes and the
strings.
"""

from __future__ import annotations

import struct
from typing import Callable, List, Optional, Sequence

from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.facts import auxv_values
from gdb_uffd.trace.snapshot import AT_RANDOM

Read = Callable[[int, int], bytes]

_NEAR = 1 << 16
"""Bytes between the auxiliary vector and AT_RANDOM's at most: an alignment and a little."""
_POINTERS_MAX = 1 << 17
_STRING_MAX = 1 << 17  # MAX_ARG_STRLEN, <linux/binfmts.h>
_LINE_MAX = 1 << 20


def arguments(auxv: bytes, read: Read) -> List[bytes]:
    """argv, as the memory that `read` reads has it now; empty where it cannot be found."""
    random = auxv_values(auxv).get(AT_RANDOM)
    if random is None:
        return []
    vector = _find(auxv, random, read)
    if vector is None:
        return []
    try:
        pointers = _pointers(vector, read)
        return _strings(pointers, read)
    except MemoryUnavailable:
        return []


def _find(auxv: bytes, random: int, read: Read) -> Optional[int]:
    """Where the auxiliary vector lies, below AT_RANDOM's bytes."""
    start, length = random, 0
    data, wanted = b"", auxv.rstrip(b"\0")
    while length < _NEAR + len(auxv):
        step = (start - 1) % PAGE_SIZE + 1
        try:
            data = read(start - step, step) + data
        except MemoryUnavailable:
            return None
        start, length = start - step, length + step
        at = data.rfind(wanted)
        if at >= 0:
            return start + at
    return None


def _pointers(vector: int, read: Read) -> List[int]:
    """argv's pointers, read downwards from the auxiliary vector; empty where argc does not fit."""
    at, environment = vector - 16, True
    found: List[int] = []
    if _word(vector - 8, read):
        return []
    for _ in range(_POINTERS_MAX):
        word = _word(at, read)
        at -= 8
        if environment:
            environment = word != 0
        elif word == len(found):  # argc; every pointer is larger
            return found[::-1]
        else:
            found.append(word)
    return []


def _word(address: int, read: Read) -> int:
    return int(struct.unpack("<Q", read(address, 8))[0])


def _strings(pointers: List[int], read: Read) -> List[bytes]:
    out: List[bytes] = []
    left = _LINE_MAX
    for pointer in pointers:
        text = b""
        while b"\0" not in text:
            step = PAGE_SIZE - (pointer + len(text)) % PAGE_SIZE
            text += read(pointer + len(text), step)
            if len(text) > min(left, _STRING_MAX):
                return []
        out.append(text[: text.index(b"\0")])
        left -= len(out[-1]) + 1
    return out


def in_a_line(words: Sequence[bytes], most: int) -> str:
    """The arguments as one text, cut after `most` characters."""
    text = b" ".join(words).decode("utf-8", "surrogateescape")
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."
