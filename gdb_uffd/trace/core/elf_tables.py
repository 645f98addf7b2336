"""Searching symbol tables and string tables at C speed."""

from __future__ import annotations

import mmap
import struct
from array import array
from typing import Iterator, Set, Tuple, Union

Buffer = Union[bytes, mmap.mmap]
SYM = struct.Struct("<IBBHQQ")  # Elf64_Sym (elf(5))
U32 = struct.Struct("<I")
MAX_TAILS = 256  # places in a string table where one name ends
STT_OBJECT = 1


def entries_named(table: bytes, wanted: Set[int]) -> Iterator[int]:
    """Indices of the symbols whose st_name is one of `wanted`, without a loop over all."""
    words = array("I")
    words.frombytes(table)
    names = words[:: SYM.size // words.itemsize].tobytes()
    for offset in sorted(wanted):
        pattern = U32.pack(offset)
        at = names.find(pattern)
        while at >= 0:
            if at % U32.size == 0:
                yield at // U32.size
            at = names.find(pattern, at + 1)


def string_offsets(data: Buffer, start: int, end: int, name: bytes) -> Set[int]:
    """Offsets of `name` in a string table; a string may be the tail of another (elf(5))."""
    found: Set[int] = set()
    at = data.find(name + b"\0", start, end)
    while at >= 0 and len(found) < MAX_TAILS:
        found.add(at - start)
        at = data.find(name + b"\0", at + 1, end)
    return found


def variables(table: bytes) -> Iterator[Tuple[int, int]]:
    """[start, end) of the symbols of a symbol table that are defined variables (STT_OBJECT)."""
    for _, info, _, section, value, size in SYM.iter_unpack(table):
        if info & 15 == STT_OBJECT and section and size:
            yield value, value + size
