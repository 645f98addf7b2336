"""Run-time addresses of symbols, searched in the order that the dynamic linker has."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.elf import PT_DYNAMIC, ElfError, ElfImage
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import ReadMemory

DT_DEBUG = 21
MAX_LINK_MAPS = 4096
MAX_CACHED = 4096
MAX_NAME = 4096  # PATH_MAX (<linux/limits.h>)


def read_word(read: ReadMemory, address: int, size: int = 8) -> int:
    """A little-endian unsigned word of `size` bytes; MemoryUnavailable."""
    return int.from_bytes(read(address, size), "little")


def link_maps(executable: Optional[Module], read: ReadMemory) -> List[int]:
    """Addresses of the struct link_map chain (<link.h>), the executable's first.

    From DT_DEBUG of the executable; empty for a static executable, or when the chain cannot be
    read.  At most MAX_LINK_MAPS, so a loop in damaged memory ends.
    """
    if executable is None or executable.image is None:
        return []
    return link_maps_of(executable.image, executable.bias, read)


def rendezvous(executable: Optional[Module], read: ReadMemory) -> int:
    """Address of the dynamic linker's struct r_debug (<link.h>), by DT_DEBUG of the executable; 0
    for a static one, or when it cannot be read."""
    if executable is None or executable.image is None:
        return 0
    return _rendezvous_of(executable.image, executable.bias, read)


def _rendezvous_of(executable: ElfImage, bias: int, read: ReadMemory) -> int:
    dynamic = executable.segment(PT_DYNAMIC)
    if dynamic is None or executable.header.word != 8:
        return 0
    try:
        raw = read(dynamic.vaddr + bias, min(dynamic.memsz, 1 << 16) & ~15)
    except MemoryUnavailable:
        return 0
    words: Tuple[int, ...] = struct.unpack(f"<{len(raw) // 8}Q", raw)
    return dict(zip(words[::2], words[1::2])).get(DT_DEBUG, 0)


def read_string(read: ReadMemory, address: int) -> str:
    """The C string at `address`, at most PATH_MAX bytes of it; MemoryUnavailable."""
    raw = b""
    while b"\0" not in raw and len(raw) < MAX_NAME:
        raw += read(address + len(raw), 64 - (address + len(raw)) % 64)
    return os.fsdecode(raw.split(b"\0")[0])


def link_maps_of(executable: ElfImage, bias: int, read: ReadMemory) -> List[int]:
    """As link_maps, of the executable's image, which lies `bias` from where it says."""
    found: List[int] = []
    debug = _rendezvous_of(executable, bias, read)
    try:
        entry = read_word(read, debug + 8) if debug else 0  # r_debug.r_map
        while entry and len(found) < MAX_LINK_MAPS and entry not in found:
            found.append(entry)
            entry = read_word(read, entry + 24)  # l_next
    except MemoryUnavailable:
        pass  # what was read so far is still in order
    return found


def variable_around(module: Module, address: int) -> Optional[Tuple[int, int]]:
    """[start, end) of the variable of `module` that holds the byte at `address`, by .symtab, else
    .dynsym; None where none is known."""
    image, at = module.image, address - module.bias
    if image is None or not any(p.vaddr <= at < p.vaddr + p.memsz for p in image.loads):
        return None
    try:
        for start, end in image.variables():
            if start <= at < end:
                return start + module.bias, end + module.bias
    except ElfError:
        pass  # damaged tables name nothing
    return None


def variable_size(modules: Sequence[Module], address: int) -> Optional[int]:
    """Bytes of the largest variable that begins at `address`, by the files' symbol tables; None
    where none with a size does."""
    for module in modules:
        image, at = module.image, address - module.bias
        if image is None or not any(p.vaddr <= at < p.vaddr + p.memsz for p in image.loads):
            continue
        with contextlib.suppress(ElfError):  # damaged tables name nothing
            return max(
                (end - start for start, end in image.variables() if start == at), default=None
            )
    return None


def search_order(
    modules: Sequence[Module], executable: Optional[Module], interpreter: int, read: ReadMemory
) -> List[Module]:
    """Modules with symbols: in the linker's order where it is known, else the executable, then
    by address, the dynamic linker (which holds AT_BASE, `interpreter`) last."""
    usable = [m for m in modules if m.image is not None]
    by_bias: Dict[int, Module] = {}
    for module in usable:
        by_bias.setdefault(module.bias, module)
    order: List[Module] = [executable] if executable in usable and executable else []
    for entry in link_maps(executable, read)[1:]:
        try:
            linked = by_bias.get(read_word(read, entry))  # l_addr
        except MemoryUnavailable:
            break
        if linked is not None and linked not in order:
            order.append(linked)
    rest = [m for m in usable if m not in order]
    rest.sort(key=lambda m: bool(interpreter) and m.holds(interpreter))
    return order + rest


class SymbolTable:
    """Looks names up: .dynsym of every module through its hash table, then .symtab."""

    def __init__(self, order: Sequence[Module]) -> None:
        self._order = order
        self._known: Dict[str, Optional[int]] = {}

    def find(self, name: str) -> Optional[int]:
        """Run-time address of `name`, or None.  Damaged objects are passed over."""
        if name not in self._known:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[name] = self._search(name)
        return self._known[name]

    def _search(self, name: str) -> Optional[int]:
        raw = name.encode("utf-8", "surrogateescape")
        for static in (False, True):
            for module in self._order:
                image = module.image
                if image is None:
                    continue
                try:
                    found = image.static_symbol(raw) if static else image.dynamic_symbol(raw)
                except ElfError:
                    continue
                if found is not None:
                    return found[0] + module.bias & (1 << 64) - 1
        return None
