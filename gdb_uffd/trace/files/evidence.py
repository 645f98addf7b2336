"""Whether a file has the bytes of the one that was mapped.

A build-id alone does not tell: a separate debug file has that of its program and none of its bytes,
and what was patched or damaged later has it too.  So what the file says of itself is looked at,
and compared with what was recorded of it.
"""

from __future__ import annotations

from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, page_floor
from gdb_uffd.trace.core.elf import PF_W, Buffer, ElfError, ElfImage
from gdb_uffd.trace.core.notes import FileRange

SHT_NOBITS, SHF_WRITE, SHF_ALLOC, SHF_TLS = 8, 1, 2, 0x400  # elf(5)
_SECTION_TYPE, _SECTION_FLAGS, _SECTION_SIZE = 1, 2, 5  # indices in an Elf64_Shdr

PAGES_MAX = 16
"""Recorded pages that are compared with a file."""

_IN_RANGE = 4  # of one mapping

_OF_SECTIONS = ((40, 48), (58, 64))
"""Where an ELF header tells of the sections (e_shoff; e_shentsize, e_shnum, e_shstrndx), which
strip(1) takes away."""

Pages = Sequence[Tuple[int, bytes]]
"""Recorded pages of a file: the offset in it, the bytes."""

DEBUG_FILE = (
    "is a separate debug file, which has names and lines but not the bytes that were mapped"
)


def recorded_pages(
    ranges: Sequence[FileRange],
    writable: Callable[[int], bool],
    recorded: Callable[[int, int], bytes],
) -> Pages:
    """Some pages of a file's mappings that were recorded and were not writable.  The first page
    comes first.

    `recorded` reads what was recorded itself, ElfError elsewhere.
    """
    found: List[Tuple[int, bytes]] = []
    for r in sorted(ranges, key=lambda r: r.offset):
        if writable(r.start):
            continue
        for start in _some(r):
            if len(found) == PAGES_MAX:
                return found
            try:
                found.append((r.offset + start - r.start, recorded(start, PAGE_SIZE)))
            except ElfError:
                continue
    return found


def _some(r: FileRange) -> Iterator[int]:
    count = (r.end - r.start) // PAGE_SIZE
    last = -1
    for i in range(_IN_RANGE):
        page = i * (count - 1) // (_IN_RANGE - 1)
        if page > last:
            yield r.start + page * PAGE_SIZE
        last = page


def contradiction(
    data: Buffer, image: Optional[ElfImage], recorded: Optional[ElfImage], pages: Pages
) -> str:
    """Why the file `data` (`image`, if it is ELF) is not what was mapped, or "".

    `recorded`: the object as far as it was recorded itself, from memory.  A program may patch its
    own code, so most of the pages must differ before a file is refused for them.
    """
    if image is not None and _lacks_bytes(image) and not _was_mapped_itself(data, pages):
        return DEBUG_FILE
    if image is not None and recorded is not None and _loads(image) != _loads(recorded):
        return "differs from the file that was mapped (it has other program headers)"
    kept = [(at, page) for at, page in pages if not _is_written(image, at)]
    differing = sum(_as_mapped(data, at, page) != page for at, page in kept)
    if 2 * differing > len(kept):
        return f"differs from the file that was mapped ({differing} of {len(kept)} pages compared)"
    return ""


def _is_written(image: Optional[ElfImage], offset: int) -> bool:
    """Whether that page of the file is part of what a program writes, or the dynamic linker does
    before it takes away the right to (RELRO)."""
    return image is not None and any(
        s.flags & PF_W and page_floor(s.offset) <= offset < s.offset + s.filesz for s in image.loads
    )


def _loads(image: ElfImage) -> List[Tuple[int, ...]]:
    return [(s.offset, s.vaddr, s.filesz, s.memsz) for s in image.loads]


def _lacks_bytes(image: ElfImage) -> bool:
    """Whether sections that were loaded and never written (.text, .rodata) are not in the file."""
    try:
        sections = image.section_headers()
    except ElfError:
        return False
    return any(
        s[_SECTION_TYPE] == SHT_NOBITS
        and s[_SECTION_FLAGS] & (SHF_ALLOC | SHF_WRITE | SHF_TLS) == SHF_ALLOC
        and s[_SECTION_SIZE]
        for s in sections
    )


def _was_mapped_itself(data: Buffer, pages: Pages) -> bool:
    """Whether a debug file is what was mapped, as data, by a program that looks up names in it: its
    very header was recorded, with the place of its sections, which no other file has there."""
    own = bytes(data[:PAGE_SIZE]).ljust(PAGE_SIZE, b"\0")
    return any(at == 0 and page == own for at, page in pages)


def _as_mapped(data: Buffer, offset: int, page: bytes) -> bytes:
    """The file's page, but for what may differ in it taken from the recorded `page`."""
    own = bytes(data[offset : offset + PAGE_SIZE]).ljust(PAGE_SIZE, b"\0")
    if offset or own[:4] != b"\x7fELF":
        return own
    for start, end in _OF_SECTIONS:
        own = own[:start] + page[start:end] + own[end:]
    return own
