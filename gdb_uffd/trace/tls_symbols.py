"""The thread-local variables of an ELF object, by their offset in its block."""

from __future__ import annotations

from array import array
from typing import List, Tuple

from gdb_uffd.trace.core import elf
from gdb_uffd.trace.core.elf import ElfError, ElfImage

MAX_SYMBOLS = 1 << 20  # of one table that are looked at
MAX_FOUND = 4096
SHT_DYNSYM = 11  # <elf.h>
INFO_AT = 4  # st_info in Elf64_Sym

Symbol = Tuple[int, int, str]
"""(offset in the block, bytes, name)."""


def thread_locals(image: ElfImage) -> List[Symbol]:
    """Sorted; from .symtab, else .dynsym; empty for an object read from memory or damaged."""
    if image.data is None or image.tls_size()[0] == 0:
        return []
    try:
        sections = image.section_headers()
        for kind in (elf.SHT_SYMTAB, SHT_DYNSYM):
            for section in sections:
                if section[1] == kind and section[6] < len(sections):
                    found = _of_table(image, section, sections[section[6]])
                    if found:
                        return sorted(found)
    except ElfError:
        pass
    return []


def _of_table(image: ElfImage, section: Tuple[int, ...], strings: Tuple[int, ...]) -> List[Symbol]:
    assert image.data is not None
    size = min(section[5] // elf.SYM.size, MAX_SYMBOLS) * elf.SYM.size
    table = elf.slice_exact(image.data, section[4], size)
    # The low four bits of st_info are the type; the rest is the binding.
    infos = array("B", table[INFO_AT :: elf.SYM.size])
    found: List[Symbol] = []
    for index, info in enumerate(infos):
        if info & 15 != elf.STT_TLS or len(found) >= MAX_FOUND:
            continue
        name_at, _, _, shndx, value, length = elf.SYM.unpack_from(table, index * elf.SYM.size)
        if shndx == 0 or not length:
            continue  # another object's
        start = strings[4] + name_at
        end = image.data.find(b"\0", start, min(start + elf.MAX_STRING, strings[4] + strings[5]))
        if end > start:
            name = bytes(image.data[start:end]).decode("utf-8", "replace")
            found.append((value, length, name))
    return found
