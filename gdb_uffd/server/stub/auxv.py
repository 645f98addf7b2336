"""The auxiliary vector as a debugger is told of it: without program headers that only damage makes.

gdb takes the number of headers, and how large PT_INTERP and PT_DYNAMIC are, from the program as it
stands, and makes room for that (solib-svr4.c, read_program_header): gdb 18 ends where there is none
(std::length_error).  Without them it takes those of the executable's file.
"""

from __future__ import annotations

import struct
from typing import Callable

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.facts import auxv_values

AT_IGNORE, AT_PHDR, AT_PHENT, AT_PHNUM = 1, 3, 4, 5  # <elf.h>, getauxval(3)
PT_DYNAMIC, PT_INTERP = 2, 3

LARGEST = {PT_DYNAMIC: 1 << 20, PT_INTERP: 4096}
"""Bytes: a path has at most PATH_MAX; a dynamic section of 65,536 entries."""

_MEMSZ = {8: (56, "<I36xQ"), 4: (32, "<I16xI")}
"""By the bytes of a pointer: the size of a program header, and its p_type and p_memsz (elf(5))."""


def harmless(auxv: bytes, word: int, read: Callable[[int, int], bytes]) -> bytes:
    """`auxv` (pairs of 64 bits), its entries about the program headers marked to be ignored if a
    header in memory is none.  `word`: the bytes of a pointer; `read`: memory as it is."""
    values = auxv_values(auxv)
    at, size, count = (values.get(kind, 0) for kind in (AT_PHDR, AT_PHENT, AT_PHNUM))
    if not at or _are_headers(at, size, count, word, read):
        return auxv
    hidden = (AT_PHDR, AT_PHENT, AT_PHNUM)
    pairs = struct.iter_unpack("<QQ", auxv[: len(auxv) & ~15])
    return b"".join(struct.pack("<QQ", AT_IGNORE if k in hidden else k, v) for k, v in pairs)


def _are_headers(
    at: int, size: int, count: int, word: int, read: Callable[[int, int], bytes]
) -> bool:
    wanted, form = _MEMSZ[word]
    if size != wanted or count > 0xFFFF:  # e_phnum has 16 bits
        return False
    try:
        headers = read(at, size * count)
    except MemoryUnavailable:
        return True  # nor does a debugger get them
    for offset in range(0, len(headers), size):
        kind, length = struct.unpack_from(form, headers, offset)
        if length > LARGEST.get(kind, length):
            return False
    return True
