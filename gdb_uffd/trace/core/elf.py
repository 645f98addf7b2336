"""Bounded reading of ELF64 little-endian objects: headers, notes, symbols.

Everything here reads through slices of a mapped file (or a callback into recorded memory) and
checks each offset: cores and libraries may be damaged or hostile.  A malformed object raises
ElfError, a line for the user.  Layouts: elf(5), System V gABI chapters 4 and 5.
"""

from __future__ import annotations

import struct
from typing import Callable, Iterator, List, Optional, Tuple

from gdb_uffd.arch import KNOWN, of_machine
from gdb_uffd.arch.others import spoken
from gdb_uffd.dataclass import dataclass
from gdb_uffd.trace.core.elf_tables import SYM as SYM
from gdb_uffd.trace.core.elf_tables import U32 as U32
from gdb_uffd.trace.core.elf_tables import Buffer as Buffer
from gdb_uffd.trace.core.elf_tables import entries_named, string_offsets, variables

ET_EXEC, ET_DYN, ET_CORE = 2, 3, 4
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS = 1, 2, 3, 4, 7
PT_GNU_EH_FRAME = 0x6474E550
PF_X, PF_W, PF_R = 1, 2, 4
PN_XNUM = 0xFFFF
NT_GNU_BUILD_ID = 3
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ = 4, 5, 6, 10
DT_GNU_HASH, DT_VERSYM = 0x6FFFFEF5, 0x6FFFFFF0
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STT_TLS, STT_GNU_IFUNC = 6, 10
VERSYM_HIDDEN = 0x8000

MAX_SEGMENTS = 1 << 20
"""Program headers read at most: 16 times the kernel's default vm.max_map_count (65,530)."""
MAX_OBJECT_SEGMENTS = 4096  # program headers of an executable or library
MAX_SECTIONS = 1 << 20
MAX_NOTE = 64 << 10  # bytes of an object's note segment that are searched for a build-id
MAX_DYNAMIC = 4096  # entries of a dynamic section
MAX_CHAIN = 1 << 16  # symbols of one hash bucket
MAX_STRING = 4096  # bytes

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
EHDR32 = struct.Struct("<16sHHIIIIIHHHHHH")
PHDR32 = struct.Struct("<IIIIIIII")
SHDR = struct.Struct("<IIQQQQIIQQ")
NHDR = struct.Struct("<III")
U64 = struct.Struct("<Q")


class ElfError(Exception):
    """The object is not what it claims to be; the text says what is wrong with it."""


@dataclass(frozen=True)
class Header:
    """The fields of Elf64_Ehdr that are used (elf(5))."""

    type: int
    machine: int  # e_machine
    entry: int
    phoff: int
    phentsize: int
    phnum: int
    shoff: int
    shentsize: int
    shnum: int
    word: int = 8  # 4: ELFCLASS32


@dataclass(frozen=True)
class ProgramHeader:
    """Elf64_Phdr (elf(5)) without p_paddr."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


def slice_exact(data: Buffer, offset: int, length: int) -> bytes:
    """`length` bytes at `offset`; ElfError when they are not all inside `data`."""
    if offset < 0 or length < 0 or offset + length > len(data):
        raise ElfError(f"bytes {offset:#x}+{length:#x} lie outside it ({len(data):#x} bytes)")
    return data[offset : offset + length]


class ForeignElf(ElfError):
    """A whole header, of a processor that is none of ours; `kind` is its e_type."""

    def __init__(self, kind: int, processor: str) -> None:
        super().__init__(f"an ELF file of {processor}, not {KNOWN}")
        self.kind = kind
        self.processor = processor


def read_header(data: Buffer) -> Header:
    """The header of a file of one of our processors; ForeignElf of another one, else ElfError."""
    if bytes(data[:4]) != b"\x7fELF":
        raise ElfError("not an ELF file")
    raw = slice_exact(data, 0, EHDR.size)
    narrow = raw[4:6] == b"\x01\x01" and of_machine(raw[18] | raw[19] << 8, 4) is not None
    if raw[4] in (1, 2) and raw[5] in (1, 2) and raw[4:6] != b"\x02\x01" and not narrow:
        foreign_kind, foreign = struct.unpack_from("<HH" if raw[5] == 1 else ">HH", raw, 16)
        raise ForeignElf(foreign_kind, spoken(foreign, raw[4] == 2, raw[5] == 1))
    ident, kind, machine, _, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = (
        EHDR32.unpack(raw[: EHDR32.size]) if narrow else EHDR.unpack(raw)
    )
    if not narrow and (ident[4] != 2 or ident[5] != 1):
        raise ElfError(f"an ELF file of unknown class {ident[4]} or byte order {ident[5]}")
    word = 4 if narrow else 8
    return Header(kind, machine, entry, phoff, phentsize, phnum, shoff, shentsize, shnum, word)


def segment_count(data: Buffer, header: Header) -> int:
    """Number of program headers, PN_XNUM resolved through sh_info of section 0 (elf(5)).

    ElfError when section 0 is not there (a truncated core loses it: it lies at the end).
    """
    if header.phnum != PN_XNUM:
        return header.phnum
    if header.shoff == 0:
        raise ElfError("e_phnum is PN_XNUM and there is no section 0")
    if header.word == 4:
        return int.from_bytes(slice_exact(data, header.shoff + 28, 4), "little")
    return int(SHDR.unpack(slice_exact(data, header.shoff, SHDR.size))[7])


def read_segments(data: Buffer, header: Header, count: int) -> List[ProgramHeader]:
    """The first `count` program headers; ElfError when they lie outside `data`."""
    layout = PHDR if header.word == 8 else PHDR32
    if count and header.phentsize != layout.size:
        raise ElfError(f"program headers of {header.phentsize} bytes, not {layout.size}")
    if count > MAX_SEGMENTS:
        raise ElfError(f"{count} program headers, more than {MAX_SEGMENTS}")
    return program_headers(slice_exact(data, header.phoff, count * layout.size), header)


def program_headers(raw: bytes, header: Header) -> List[ProgramHeader]:
    """Those in `raw`, whole ones."""
    if header.word == 4:  # the flags have another place there
        return [
            ProgramHeader(kind, flags, offset, vaddr, filesz, memsz, align)
            for kind, offset, vaddr, _, filesz, memsz, flags, align in PHDR32.iter_unpack(raw)
        ]
    return [
        ProgramHeader(kind, flags, offset, vaddr, filesz, memsz, align)
        for kind, flags, offset, vaddr, _, filesz, memsz, align in PHDR.iter_unpack(raw)
    ]


def iter_notes(data: Buffer, start: int, end: int) -> Iterator[Tuple[bytes, int, int, int]]:
    """(owner without NUL, type, description offset, description length) of each whole note.

    Notes are 4-byte aligned in cores and in build-id segments (gABI "Note Section").  Stops
    at the first note that does not lie whole in `[start, end)`; the caller sees a missing one.
    """
    end = min(end, len(data))
    while start + NHDR.size <= end:
        namesz, descsz, kind = NHDR.unpack(data[start : start + NHDR.size])
        name = start + NHDR.size
        desc = name + (namesz + 3 & ~3)
        if desc + descsz > end:
            return
        owner = bytes(data[name : name + namesz]) if namesz <= 64 else b""
        yield owner.rstrip(b"\0"), kind, desc, descsz
        start = desc + (descsz + 3 & ~3)


def _check_object(header: Header) -> None:
    if of_machine(header.machine, header.word) is None or header.type not in (ET_EXEC, ET_DYN):
        raise ElfError(f"no executable or shared object for {KNOWN}")


class ElfImage:
    """An executable or shared object, read at the object's own virtual addresses.

    Made over a mapped file (`from_file`), an image in memory order (`from_memory`: bytes
    of the vdso, or recorded memory of a library whose file is gone).  `bias` is run-time
    address minus virtual address; 0 for an image made from a file.
    """

    def __init__(
        self,
        header: Header,
        segments: List[ProgramHeader],
        read: Callable[[int, int], bytes],
        data: Optional[Buffer] = None,
        bias: int = 0,
    ) -> None:
        self.header = header
        self.segments = segments
        self.loads = sorted((s for s in segments if s.type == PT_LOAD), key=lambda s: s.vaddr)
        self.read = read
        self.data = data
        self.bias = bias
        self._dynamic: Optional[dict[int, int]] = None
        self._sections: Optional[List[Tuple[int, ...]]] = None

    @classmethod
    def from_file(cls, data: Buffer) -> ElfImage:
        """The object whose whole file is `data`; ElfError when it is none."""
        header = read_header(data)
        _check_object(header)
        count = min(segment_count(data, header), MAX_OBJECT_SEGMENTS)
        segments = read_segments(data, header, count)
        loads = [s for s in segments if s.type == PT_LOAD]

        def read(vaddr: int, length: int) -> bytes:
            for s in loads:
                if s.vaddr <= vaddr and vaddr + length <= s.vaddr + s.filesz:
                    return slice_exact(data, s.offset + vaddr - s.vaddr, length)
            raise ElfError(f"virtual address {vaddr:#x} is in no loaded segment")

        return cls(header, segments, read, data)

    @classmethod
    def from_memory(cls, base: int, read_memory: Callable[[int, int], bytes]) -> ElfImage:
        """The object whose ELF header is mapped at `base`; `read_memory` raises ElfError."""
        header = read_header(read_memory(base, EHDR.size))
        _check_object(header)
        size = PHDR.size if header.word == 8 else PHDR32.size
        if header.phentsize != size or header.phnum > MAX_OBJECT_SEGMENTS:
            raise ElfError("unusable program headers")
        raw = read_memory(base + header.phoff, header.phnum * size)
        segments = program_headers(raw, header)
        loads = sorted((s for s in segments if s.type == PT_LOAD), key=lambda s: s.vaddr)
        if not loads:
            raise ElfError("no loaded segment")
        bias = base - (loads[0].vaddr - loads[0].offset)
        return cls(header, segments, lambda va, n: read_memory(va + bias, n), None, bias)

    def segment(self, kind: int) -> Optional[ProgramHeader]:
        """The first program header of that type, or None."""
        return next((s for s in self.segments if s.type == kind), None)

    def tls_size(self) -> Tuple[int, int]:
        """(size, alignment) of the thread-local block; (0, 1) without PT_TLS."""
        tls = self.segment(PT_TLS)
        if tls is None or tls.memsz > 1 << 32:
            return 0, 1
        align = tls.align if 0 < tls.align <= 1 << 20 and not tls.align & tls.align - 1 else 1
        return tls.memsz, align

    def build_id(self) -> bytes:
        """The GNU build-id (ld(1) --build-id), or b"" when there is none to be read."""
        for s in self.segments:
            if s.type != PT_NOTE or not 0 < s.filesz <= MAX_NOTE:
                continue
            try:
                notes = self.read(s.vaddr, s.filesz)
            except ElfError:
                continue
            for owner, kind, offset, length in iter_notes(notes, 0, len(notes)):
                if owner == b"GNU" and kind == NT_GNU_BUILD_ID and 0 < length <= 64:
                    return notes[offset : offset + length]
        return b""

    def dynamic(self) -> dict[int, int]:
        """Dynamic tags (first of each) with addresses as the object's own."""
        if self._dynamic is None:
            self._dynamic = {}
            for tag, value in self._dynamic_entries():
                self._dynamic.setdefault(tag, value)
        return self._dynamic

    def dynamic_values(self, tag: int) -> List[int]:
        """The values of all entries of a tag."""
        return [value for each, value in self._dynamic_entries() if each == tag]

    def _dynamic_entries(self) -> Iterator[Tuple[int, int]]:
        s = self.segment(PT_DYNAMIC)
        if s is None or self.header.word != 8:
            return  # what is only looked at needs no symbols: gdb has them
        raw = self.read(s.vaddr, min(s.filesz, MAX_DYNAMIC * 16))
        top = max((p.vaddr + p.memsz for p in self.loads), default=0)
        for tag, value in struct.iter_unpack("<QQ", raw[: len(raw) & ~15]):
            if tag == 0:
                return
            # ld.so adds the load address to some d_ptr in memory (glibc, not the vdso).
            if self.bias and value >= top and 0 <= value - self.bias < top:
                value -= self.bias
            yield tag, value

    def _symbol(self, index: int) -> Tuple[int, ...]:
        return SYM.unpack(self.read(self.dynamic()[DT_SYMTAB] + index * SYM.size, SYM.size))

    def _named(self, offset: int, name: bytes) -> bool:
        if offset + len(name) >= self.dynamic().get(DT_STRSZ, 0):
            return False
        at = self.dynamic()[DT_STRTAB] + offset
        return self.read(at, len(name) + 1) == name + b"\0"

    def dynamic_symbol(self, name: bytes) -> Optional[Tuple[int, int]]:
        """(value, size) of a defined dynamic symbol, the default version first; else None.

        Thread-local and ifunc symbols have no address of their own and are left out.
        ElfError when the tables are damaged.
        """
        second: Optional[Tuple[int, int]] = None
        for _, info, value, size, version in self.dynamic_symbols(name):
            if info & 15 in (STT_TLS, STT_GNU_IFUNC):
                continue
            if not version & VERSYM_HIDDEN:
                return value, size
            second = second or (value, size)
        return second

    def dynamic_symbols(self, name: bytes) -> Iterator[Tuple[int, int, int, int, int]]:
        """(index, st_info, value, size, its entry of DT_VERSYM, else 0) of each definition.
        ElfError when the tables are damaged."""
        dyn = self.dynamic()
        try:
            if len(name) > MAX_STRING or not (DT_GNU_HASH in dyn or DT_HASH in dyn):
                return
            gnu = DT_GNU_HASH in dyn
            chain = self._gnu_chain if gnu else self._sysv_chain
            for index in chain(dyn[DT_GNU_HASH if gnu else DT_HASH], name):
                st_name, info, _, section, value, size = self._symbol(index)
                if section != 0 and self._named(st_name, name):
                    at = dyn.get(DT_VERSYM)
                    raw = self.read(at + 2 * index, 2) if at is not None else b""
                    yield index, info, value, size, int.from_bytes(raw, "little")
        except KeyError as missing:
            raise ElfError(f"no dynamic tag {missing}") from missing

    def _gnu_chain(self, table: int, name: bytes) -> Iterator[int]:
        """Symbol indices whose GNU hash agrees (binutils' elf_gnu_hash, glibc do_lookup_x)."""
        value = 5381
        for c in name:
            value = value * 33 + c & 0xFFFFFFFF
        buckets, first, bloom, shift = struct.unpack("<IIII", self.read(table, 16))
        if not buckets or not bloom or shift > 63:
            return
        at = table + 16 + value // 64 % bloom * 8
        word = U64.unpack(self.read(at, 8))[0]
        if not word >> value % 64 & word >> (value >> shift) % 64 & 1:
            return
        bucket_table = table + 16 + bloom * 8
        start = U32.unpack(self.read(bucket_table + value % buckets * 4, 4))[0]
        if start < first:
            return
        chain = bucket_table + buckets * 4
        for index in range(start, start + MAX_CHAIN):
            hashed = U32.unpack(self.read(chain + (index - first) * 4, 4))[0]
            if hashed | 1 == value | 1:
                yield index
            if hashed & 1:
                return

    def _sysv_chain(self, table: int, name: bytes) -> Iterator[int]:
        """Symbol indices of the bucket (gABI chapter 5, "Hash Table")."""
        value = 0
        for c in name:
            value = (value << 4) + c
            high = value & 0xF0000000
            value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
        buckets, chains = struct.unpack("<II", self.read(table, 8))
        if not buckets:
            return
        index = U32.unpack(self.read(table + 8 + value % buckets * 4, 4))[0]
        for _ in range(min(chains, MAX_CHAIN)):
            if index == 0 or index >= chains:
                return
            yield index
            index = U32.unpack(self.read(table + 8 + (buckets + index) * 4, 4))[0]

    def static_symbol(self, name: bytes) -> Optional[Tuple[int, int]]:
        """(value, size) of a defined symbol of .symtab, global ones first; else None.

        Works on files only (section headers are not loaded), at C speed: finds the name in the
        string table, then its offset among the st_name fields.
        """
        if self.data is None or not name or len(name) > MAX_STRING:
            return None
        sections = self.section_headers()
        local: Optional[Tuple[int, int]] = None
        for section in sections:
            if section[1] != SHT_SYMTAB or section[6] >= len(sections):
                continue
            strings = sections[section[6]]
            table = slice_exact(self.data, section[4], section[5] // SYM.size * SYM.size)
            slice_exact(self.data, strings[4], 0)
            end = min(strings[4] + strings[5], len(self.data))
            wanted = string_offsets(self.data, strings[4], end, name)
            if not wanted:
                continue
            for index in entries_named(table, wanted):
                _, info, _, shndx, value, size = SYM.unpack_from(table, index * SYM.size)
                if shndx == 0 or shndx >= 0xFF00 or info & 15 in (STT_TLS, STT_GNU_IFUNC):
                    continue  # undefined, absolute, common, thread-local, indirect
                if info >> 4:
                    return value, size
                local = local or (value, size)
        return local

    def variables(self) -> Iterator[Tuple[int, int]]:
        """[start, end) of each variable, as .symtab and .dynsym of the file have them; ElfError."""
        for section in self.section_headers():
            if section[1] in (SHT_SYMTAB, SHT_DYNSYM) and self.data is not None:
                table = slice_exact(self.data, section[4], section[5] // SYM.size * SYM.size)
                yield from variables(table)

    def section_headers(self) -> List[Tuple[int, ...]]:
        if self._sections is None:
            h = self.header
            self._sections = []
            if self.data is not None and h.shoff and h.shentsize == SHDR.size:
                count = h.shnum or SHDR.unpack(slice_exact(self.data, h.shoff, SHDR.size))[5]
                if count > MAX_SECTIONS:
                    raise ElfError(f"{count} sections")
                raw = slice_exact(self.data, h.shoff, count * SHDR.size)
                self._sections = list(SHDR.iter_unpack(raw))
        return self._sections
