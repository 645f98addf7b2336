"""What the dynamic linker would bind a call to: symbols, versions and scopes, as the objects' own
tables tell them.  System V gABI chapter 5; "ELF Symbol Versioning" (Drepper); glibc's
elf/dl-lookup.c.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.arch import Architecture
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.elf import (
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERSYM,
    MAX_STRING,
    STT_GNU_IFUNC,
    STT_TLS,
    SYM,
    VERSYM_HIDDEN,
    ElfError,
    ElfImage,
)
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import ReadMemory
from gdb_uffd.trace.symbols import link_maps, read_word

DT_NEEDED, DT_PLTRELSZ, DT_PLTGOT, DT_RELA, DT_RELASZ, DT_SONAME = 1, 2, 3, 7, 8, 14
DT_JMPREL, DT_SYMBOLIC, DT_FLAGS = 23, 16, 30
DT_VERDEF, DT_VERNEED = 0x6FFFFFFC, 0x6FFFFFFE
DF_SYMBOLIC = 2
_RELA = struct.Struct("<QQq")
_STB_LOCAL = 0
_VER_NDX_GLOBAL = 1
_VERSIONS_MAX = 4096  # records of a version table; a loop in a damaged one ends
_RELOCATIONS_MAX = 1 << 20


@dataclass(frozen=True)
class UnboundCall:
    """A call that is not bound yet: `slot` is to hold the address of `name` in `version` ("" for
    none) of the file `file` ("" when no version tells)."""

    module: Module
    slot: int
    name: bytes
    version: bytes
    file: bytes


@dataclass(frozen=True)
class BoundTarget:
    """`indirect`: `address` is of a function that chooses one (STT_GNU_IFUNC).  `past`: objects
    whose tables are not here come before it, so that the linker itself cannot look it up."""

    module: Module
    address: int
    indirect: bool
    past: bool = False


class Linker:
    """The objects of one process, in the order of its list (link map)."""

    def __init__(
        self,
        modules: Sequence[Module],
        main: Optional[Module],
        read: ReadMemory,
        arch: Architecture,
    ) -> None:
        self.jump_slot, self.global_data, self.indirect = arch.relocations
        self.read = read
        self.by_entry: Dict[int, Module] = {}  # link map: object
        self._known_names: Dict[int, List[bytes]] = {}
        for entry in link_maps(main, read):
            try:
                dynamic = read_word(read, entry + 16)  # l_ld
            except MemoryUnavailable:
                break
            module = next((m for m in modules if m.holds(dynamic)), None)
            if module is not None:
                self.by_entry[entry] = module
        self.order = _unique(self.by_entry.values())

    # -- the call -----------------------------------------------------------------------------

    def resolver(self, module: Module) -> int:
        """Where an unbound call of the object goes: the third word of its DT_PLTGOT; 0: nowhere."""
        try:
            at = _image(module).dynamic()[DT_PLTGOT] + module.bias
            return read_word(self.read, at + 16)
        except (KeyError, ElfError, MemoryUnavailable):
            return 0

    def call(self, module: Module, index: int) -> Optional[UnboundCall]:
        """The `index`th of the calls that the object binds when they are made; None for none."""
        try:
            image = _image(module)
            tags = image.dynamic()
            if not 0 <= index < tags[DT_PLTRELSZ] // _RELA.size:
                return None
            raw = image.read(tags[DT_JMPREL] + index * _RELA.size, _RELA.size)
            offset, info, _ = _RELA.unpack(raw)
            if info & 0xFFFFFFFF != self.jump_slot:
                return None
            name = _symbol_name(image, info >> 32)
            version, file = _needed_version(image, info >> 32)
        except (KeyError, ElfError):
            return None
        return UnboundCall(module, offset + module.bias, name, version, file) if name else None

    def index_of_slot(self, module: Module, slot: int) -> int:
        """Which call a slot of the object's DT_PLTGOT belongs to; -1: none."""
        try:
            first = _image(module).dynamic()[DT_PLTGOT] + module.bias + 24
        except (KeyError, ElfError):
            return -1
        return (slot - first) // 8 if slot >= first and not (slot - first) % 8 else -1

    # -- its target ---------------------------------------------------------------------------

    def target(self, call: UnboundCall) -> Optional[BoundTarget]:
        """What it is bound to, or None: nothing that is here defines it, or what is not here may
        do so before."""
        past = False
        for module in self._scope(call.module):
            try:
                found = self._defined(module, call)
            except (ElfError, KeyError):
                found, past = None, True
                if not call.file or call.file in self._names(module):
                    return None
            if found is not None:
                return self._witnessed(call, found) if past else found
        return None

    def _witnessed(self, call: UnboundCall, found: BoundTarget) -> BoundTarget:
        """`found` lies behind an object that may define it as well, and whose tables are not here:
        to what another object's call of it is bound tells."""
        for module, slot in self._slots(call.name):
            try:
                word = read_word(self.read, slot)
            except MemoryUnavailable:
                continue
            holder = next((m for m in self.order if m.holds(word)), None)
            if holder is found.module:
                break
            if holder is not None and holder is not module and holder is not self.order[0]:
                return BoundTarget(
                    holder, word, False, True
                )  # no stub of its own, nor the program's
        return dataclasses.replace(found, past=True)

    def _scope(self, module: Module) -> List[Module]:
        """Where a symbol of the object is looked for: what the program was started with, what the
        object brought with it, the rest."""
        order = self.order
        started = {id(m) for m in self._needed(order[0])} if order else set()
        last = max((i for i, m in enumerate(order) if id(m) in started), default=0)
        own = [module] if _is_symbolic(module) else []
        return _unique([*own, *order[: last + 1], *self._needed(module), *order])

    def _needed(self, module: Module) -> List[Module]:
        """The object and what it needs, breadth first."""
        found = [module]
        for each in found:
            for name in _strings(each, DT_NEEDED):
                known = next((m for m in self.order if name in self._names(m)), None)
                if known is not None and not any(known is m for m in found):
                    found.append(known)
        return found

    def _names(self, module: Module) -> List[bytes]:
        """By which others need it: DT_SONAME, the file's name, that of the linker's list."""
        known = self._known_names.get(id(module))
        if known is None:
            known = [*_strings(module, DT_SONAME), os.fsencode(os.path.basename(module.path))]
            known += [
                os.path.basename(_name_of(self.read, entry))
                for entry, m in self.by_entry.items()
                if m is module
            ]
            self._known_names[id(module)] = known
        return known

    def _defined(self, module: Module, call: UnboundCall) -> Optional[BoundTarget]:
        image = _image(module)
        versioned = DT_VERSYM in image.dynamic()
        for _, info, value, _, version in image.dynamic_symbols(call.name):
            kind = info & 15
            if info >> 4 == _STB_LOCAL or kind == STT_TLS or (not value and kind):
                continue
            if versioned and not _is_wanted(image, version, call.version):
                continue
            return BoundTarget(module, value + module.bias & (1 << 64) - 1, kind == STT_GNU_IFUNC)
        return None

    # -- indirect functions -------------------------------------------------------------------

    def chosen(self, target: BoundTarget, name: bytes) -> int:
        """What the process has chosen for an indirect function, where some other call of it is
        bound already; else 0."""
        own = target.address - target.module.bias
        for slot, kind, _, addend in _relocations(target.module):
            if kind == self.indirect and addend == own:
                return self._bound(slot + target.module.bias, target.module)
        words = (self._bound(slot, target.module) for _, slot in self._slots(name))
        return next(filter(None, words), 0)

    def _slots(self, name: bytes) -> Iterator[Tuple[Module, int]]:
        """Where the objects keep the address of the function."""
        for module in self.order:
            for slot, kind, symbol, addend in _relocations(module):
                if kind not in (self.jump_slot, self.global_data) or addend:
                    continue
                try:
                    same = _is_named(_image(module), symbol, name)
                except (ElfError, KeyError):
                    break
                if same:
                    yield module, slot + module.bias

    def bound_to(self, address: int) -> bytes:
        """The name by which some call is bound to that address; b"" for none."""
        for module in self.order:
            for slot, kind, symbol, _ in _relocations(module):
                if kind not in (self.jump_slot, self.global_data):
                    continue
                try:
                    if read_word(self.read, slot + module.bias) == address:
                        return _symbol_name(_image(module), symbol)
                except (ElfError, KeyError, MemoryUnavailable):
                    continue
        return b""

    def _bound(self, slot: int, module: Module) -> int:
        """The word of a slot, if it leads into `module`."""
        try:
            found = read_word(self.read, slot)
        except MemoryUnavailable:
            return 0
        return found if module.holds(found) else 0


def _image(module: Module) -> ElfImage:
    if module.image is None:
        raise ElfError("not read")
    return module.image


def _string(image: ElfImage, offset: int) -> bytes:
    at, text = image.dynamic()[DT_STRTAB] + offset, b""
    while b"\0" not in text and len(text) < MAX_STRING:
        text += image.read(at + len(text), 1)
    return text.split(b"\0")[0]


def _symbol_name(image: ElfImage, index: int) -> bytes:
    raw = image.read(image.dynamic()[DT_SYMTAB] + index * SYM.size, SYM.size)
    return _string(image, SYM.unpack(raw)[0])


def _is_named(image: ElfImage, index: int, name: bytes) -> bool:
    raw = image.read(image.dynamic()[DT_SYMTAB] + index * SYM.size, 4)
    at = image.dynamic()[DT_STRTAB] + int.from_bytes(raw, "little")
    try:
        return image.read(at, len(name) + 1) == name + b"\0"
    except ElfError:  # a shorter one at the table's end
        return False


def _strings(module: Module, tag: int) -> List[bytes]:
    """The strings of all entries of that tag of an object's dynamic section."""
    try:
        image = _image(module)
        return [_string(image, value) for value in image.dynamic_values(tag)]
    except (ElfError, KeyError):
        return []


def _unique(modules: Iterable[Module]) -> List[Module]:
    return list({id(m): m for m in modules}.values())


def _name_of(read: ReadMemory, entry: int) -> bytes:
    """l_name of a link map; b"" when it cannot be read."""
    try:
        at, text = read_word(read, entry + 8), b""
        while b"\0" not in text and len(text) < MAX_STRING:
            text += read(at + len(text), 1)
    except MemoryUnavailable:
        return b""
    return text.split(b"\0")[0]


def _is_symbolic(module: Module) -> bool:
    try:
        tags = _image(module).dynamic()
    except ElfError:
        return False
    return DT_SYMBOLIC in tags or bool(tags.get(DT_FLAGS, 0) & DF_SYMBOLIC)


def _needed_version(image: ElfImage, symbol: int) -> Tuple[bytes, bytes]:
    """(version, file) that the reference asks for; empty where it asks for none."""
    tags = image.dynamic()
    if DT_VERSYM not in tags or DT_VERNEED not in tags:
        return b"", b""
    wanted = int.from_bytes(image.read(tags[DT_VERSYM] + 2 * symbol, 2), "little") & 0x7FFF
    at = tags[DT_VERNEED]
    for _ in range(_VERSIONS_MAX):
        _, count, file, first, next_ = struct.unpack("<HHIII", image.read(at, 16))
        each = at + first
        for _ in range(count):
            _, _, other, name, step = struct.unpack("<IHHII", image.read(each, 16))
            if other & 0x7FFF == wanted:
                return _string(image, name), _string(image, file)
            each += step
        if not next_:
            break
        at += next_
    return b"", b""


def _is_wanted(image: ElfImage, versym: int, wanted: bytes) -> bool:
    """Whether a definition serves a reference: the version that it asks for, or one without a
    version; for one that asks for none, what is not hidden (dl-lookup.c, check_match)."""
    if not wanted or versym == _VER_NDX_GLOBAL:
        return not versym & VERSYM_HIDDEN
    number, tags = versym & 0x7FFF, image.dynamic()
    at = tags.get(DT_VERDEF, 0)
    for _ in range(_VERSIONS_MAX if at else 0):
        _, _, index, _, _, first, next_ = struct.unpack("<HHHHIII", image.read(at, 20))
        if index & 0x7FFF == number:
            name = int.from_bytes(image.read(at + first, 4), "little")
            return _string(image, name) == wanted
        if not next_:
            break
        at += next_
    return False


def _relocations(module: Module) -> Iterator[Tuple[int, int, int, int]]:
    """(own address, type, symbol, addend) of an object's dynamic relocations."""
    try:
        image = _image(module)
        tags = image.dynamic()
        for start, size in ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)):
            length = min(tags.get(size, 0), _RELOCATIONS_MAX * _RELA.size) // _RELA.size
            raw = image.read(tags[start], length * _RELA.size) if length else b""
            for offset, info, addend in _RELA.iter_unpack(raw):
                yield offset, info & 0xFFFFFFFF, info >> 32, addend
    except (ElfError, KeyError):
        return
