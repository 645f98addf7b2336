"""The objects of a process whose core does not tell which files were mapped (no NT_FILE, as in
valgrind's): found by their ELF headers in memory, named by the dynamic linker's list."""

from __future__ import annotations

import os
import struct
from typing import Dict, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable, page_ceil, page_floor
from gdb_uffd.trace.core.elf import ET_EXEC, PT_DYNAMIC, PT_INTERP, ElfError, ElfImage
from gdb_uffd.trace.core.loads import Dumped
from gdb_uffd.trace.core.notes import FileRange, Notes
from gdb_uffd.trace.symbols import DT_DEBUG, link_maps_of, read_word

MAX_OBJECTS = 4096
_MAX_NAME = 4096  # PATH_MAX (<linux/limits.h>)
_AT_PHDR, _AT_PHENT, _AT_PHNUM, _AT_PAGESZ, _AT_BASE, _AT_ENTRY = 3, 4, 5, 6, 7, 9  # <elf.h>
_DT_SONAME, _DT_STRTAB = 14, 5


@dataclass
class _Object:
    start: int
    image: ElfImage
    name: str = ""


class Objects:
    """Those whose headers the core holds, in order of address."""

    def __init__(self, dumped: Dumped) -> None:
        self._dumped = dumped
        self.found: List[_Object] = []
        for load in dumped.loads:
            if len(self.found) == MAX_OBJECTS:
                break
            try:
                if dumped.read(load.start, 4) != b"\x7fELF":
                    continue
                self.found.append(
                    _Object(load.start, ElfImage.from_memory(load.start, dumped.read))
                )
            except ElfError:
                continue
        self.main = self._executable()
        self._name_all()

    def _read(self, address: int, length: int) -> bytes:
        try:
            return self._dumped.read(address, length)
        except ElfError as error:
            raise MemoryUnavailable(address, str(error)) from error

    def _executable(self) -> Optional[_Object]:
        """What has no fixed place but DT_DEBUG, or a fixed place: no library has either."""
        for each in self.found:
            if each.image.header.type == ET_EXEC:
                return each
        for each in self.found:
            try:
                if each.image.dynamic().get(DT_DEBUG):
                    return each
            except ElfError:
                continue
        return None

    def _name_all(self) -> None:
        main = self.main
        names: Dict[int, str] = {}
        if main is not None:
            for entry in link_maps_of(main.image, main.image.bias, self._read):
                try:
                    dynamic = read_word(self._read, entry + 16)  # l_ld
                    names[dynamic] = self._string(read_word(self._read, entry + 8))  # l_name
                except MemoryUnavailable:
                    continue
        for each in self.found:
            segment = each.image.segment(PT_DYNAMIC)
            at = segment.vaddr + each.image.bias if segment is not None else 0
            each.name = names.get(at, "") or self._soname(each.image)

    def _string(self, address: int) -> str:
        raw = b""
        while b"\0" not in raw and len(raw) < _MAX_NAME:
            raw += self._read(address + len(raw), 16 - (address + len(raw)) % 16)
        return os.fsdecode(raw.split(b"\0")[0])

    def _soname(self, image: ElfImage) -> str:
        try:
            tags = image.dynamic()
            at = tags[_DT_STRTAB] + tags[_DT_SONAME] + image.bias
            return self._string(at)
        except (KeyError, ElfError, MemoryUnavailable):
            return ""

    def file_ranges(self, name: str, user_end: int) -> List[FileRange]:
        """As NT_FILE would have them; `name` is the executable's.  What has no name is left out."""
        ranges: List[FileRange] = []
        for each in self.found:
            path = name if each is self.main else each.name
            if not path or path.startswith("linux-vdso"):
                continue
            for s in each.image.loads:
                start = page_floor(each.image.bias + s.vaddr)
                end = min(page_ceil(each.image.bias + s.vaddr + s.filesz), user_end)
                begins = max(start, ranges[-1].end) if ranges else start
                if 0 < begins < end:
                    offset = page_floor(s.offset) + begins - start
                    ranges.append(FileRange(begins, end, offset, path))
        return ranges

    def auxv(self) -> bytes:
        """The part of the auxiliary vector that tells gdb where things are; b"" when the
        executable is not known."""
        main = self.main
        if main is None:
            return b""
        header, bias = main.image.header, main.image.bias
        values = {
            _AT_PHDR: main.start + header.phoff,
            _AT_PHENT: header.phentsize,
            _AT_PHNUM: header.phnum,
            _AT_PAGESZ: PAGE_SIZE,
            _AT_ENTRY: bias + header.entry,
        }
        linker = next((each for each in self.found if self._is_linker(each)), None)
        if linker is not None:
            values[_AT_BASE] = linker.image.bias
        return b"".join(struct.pack("<QQ", *pair) for pair in (*values.items(), (0, 0)))

    def _is_linker(self, each: _Object) -> bool:
        """Whether it is the object that the executable names as its interpreter."""
        if self.main is None:
            return False
        wanted = self.main.image.segment(PT_INTERP)
        if wanted is None:
            return False
        try:
            raw = self.main.image.read(wanted.vaddr, min(wanted.filesz, _MAX_NAME))
        except ElfError:
            return False
        path = os.fsdecode(raw.split(b"\0")[0])
        return path in (each.name,) or os.path.basename(path) == os.path.basename(each.name)


def complete(notes: Notes, dumped: Dumped) -> None:
    """Put into `notes` what they lack of files and the auxiliary vector, as far as memory tells."""
    if notes.files is not None and notes.auxv:
        return
    objects = Objects(dumped)
    if notes.files is None:
        notes.files = objects.file_ranges(notes.name or "executable", notes.arch.user_end) or None
    notes.auxv = notes.auxv or objects.auxv()
