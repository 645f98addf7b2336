"""Whose bytes are that no heap explains: malloc's variables, linker's slots, thread-locals."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    THREAD_CONTROL,
    DirtyPage,
    DirtyRange,
    Mapping,
    UffdError,
)
from gdb_uffd.replay.attribute import layouts, malloc
from gdb_uffd.replay.attribute.layouts import MallocState
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.replay.views import View
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import ElfError, ElfImage
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import ReadMemory
from gdb_uffd.trace.symbols import link_maps, read_word
from gdb_uffd.trace.tls_symbols import Symbol, thread_locals

Range = Tuple[int, int]

DT_PLTRELSZ, DT_PLTGOT = 2, 3  # gABI, "Dynamic Section"
RELA_BYTES = 24  # sizeof(Elf64_Rela)
GOT_RESERVED = 24  # the first three slots are the linker's own (psABI 5.2)
MAX_BLOCKS = 1024  # thread-local blocks of one thread
DTV_POINTER, DTV_ENTRY = 8, 16  # tcbhead_t.dtv; its entry -1 holds how many there are
_LINKER = re.compile(r"/(ld-[^/]*|ld64[^/]*|ld)\.so[^/]*$")
"""File names of glibc's dynamic linker; its counters change when it binds a function."""


@dataclass(frozen=True)
class TlsBlock:
    """[start, end): one module's thread-locals of one thread; sorted by start."""

    start: int
    end: int
    tid: int
    symbols: Sequence[Symbol]
    path: str = ""  # of the module; "" for the thread's control block


class Owners:
    """Look-ups over one snapshot; what they find is remembered."""

    def __init__(self, vessel: Vessel) -> None:
        self.vessel = vessel
        self.snapshot = vessel.snapshot
        self.modules: Sequence[Module] = self.snapshot.modules
        self._starts: Dict[str, int] = {}
        for m in self.snapshot.mappings:
            self._starts.setdefault(m.name, m.start)
        self._ranges = [m.start for m in self.snapshot.mappings]
        self._slots: Optional[List[Tuple[int, int]]] = None
        self._symbols: Dict[int, List[Symbol]] = {}  # id of a module's image -> its thread-locals
        self._blocks: Dict[int, List[TlsBlock]] = {}  # by TID, where all are there
        self._present: Dict[int, List[TlsBlock]] = {}  # those of the report at hand

    def mapping_start(self, address: int, name: str, born: Sequence[Range]) -> int:
        """Where the mapping begins (of a file: its first one; or one that the call made), else the
        page."""
        for start, end in born:
            if start <= address < end:
                return start
        if name.startswith("/"):
            return self._starts.get(name, address)
        index = bisect_right(self._ranges, address) - 1
        if index >= 0 and address < self.snapshot.mappings[index].end:
            return self.snapshot.mappings[index].start
        return address & -PAGE_SIZE

    def range_of(self, address: int, born: Sequence[Range]) -> Range:
        """The mapping that holds `address`, one that the call made included."""
        for start, end in born:
            if start <= address < end:
                return start, end
        index = bisect_right(self._ranges, address) - 1
        mappings = self.snapshot.mappings
        if index < 0 or address >= mappings[index].end:
            return address & -PAGE_SIZE, (address & -PAGE_SIZE) + PAGE_SIZE
        # What fork() has copied and what was mapped beside it since are two mappings.
        first = last = index
        while first and _joins(mappings[first - 1], mappings[first]):
            first -= 1
        while last + 1 < len(mappings) and _joins(mappings[last], mappings[last + 1]):
            last += 1
        return mappings[first].start, mappings[last].end

    def of_program(self, mapping: str) -> bool:
        """Whether a page's mapping is the executable: by the path that was recorded, or by that of
        the file which stands for it here."""
        main = self.snapshot.main
        return main is not None and mapping in (printable(main.path), self.snapshot.executable)

    # -- malloc's variables and the linker's slots --------------------------------------------

    def malloc_words(self, view: View, brk: Range, main: Optional[MallocState]) -> List[Range]:
        """main_arena, mp_, the break: those that are found."""
        found = [(main.address, main.address + main.layout.size)] if main is not None else []
        parameters = layouts.find_parameters(self.snapshot, view, brk)
        if parameters is not None:
            found.append((parameters.start, parameters.end))
        at = self.snapshot.symbol("__curbrk")
        return [*found, (at, at + 8)] if at else found

    def data_runs(
        self, runs: List[DirtyRange], mapping: str, words: Callable[[], List[Range]]
    ) -> List[DirtyRange]:
        """`runs` on a page of a file's data, with the roles of those that are not the program's."""
        if _LINKER.search(mapping):
            return [dataclasses.replace(run, role="linker") for run in runs]
        slots = self._linker_slots()
        index = bisect_right(slots, (runs[-1].address, 1 << 65)) - 1
        cuts: List[Tuple[int, int, str]] = []
        low, high = runs[0].address, runs[-1].address + len(runs[-1].before)
        if index >= 0 and low < slots[index][1]:
            cuts.append((*slots[index], "linker"))
        if "libc" in mapping or self.of_program(mapping):
            cuts += [(s, e, "malloc") for s, e in words() if s < high and low < e]
        if not cuts:
            return runs
        return [piece for run in runs for piece in _with_roles(run, cuts)]

    def _linker_slots(self) -> List[Range]:
        """The .got.plt of every object, sorted: lazy binding writes there."""
        if self._slots is None:
            self._slots = []
            for module in self.modules:
                place = _got(module.image) if module.image is not None else None
                if place is not None:
                    self._slots.append((place[0] + module.bias, place[1] + module.bias))
            self._slots.sort()
        return self._slots

    # -- thread-locals ------------------------------------------------------------------------

    def cache_places(self, tid: int, read: ReadMemory) -> List[Range]:
        """Where a thread's variable `tcache` lies: by its symbol, else the C library's
        thread-locals, else (a static program) the executable's."""
        return self._places_of("tcache", tid, read)

    def arena_places(self, tid: int, read: ReadMemory) -> List[Range]:
        """The same for `thread_arena`, which points to the arena that the thread allocates from."""
        return self._places_of("thread_arena", tid, read)

    def _places_of(self, variable: str, tid: int, read: ReadMemory) -> List[Range]:
        blocks = self.tls_blocks(tid, read)
        for library in (True, False):
            mine = [b for b in blocks if b.path and malloc.is_library(b.path) == library]
            named = [
                (block.start + at, block.start + at + size)
                for block in mine
                for at, size, name in block.symbols
                if name == variable and size == 8
            ]
            if named or mine:
                return named or [(block.start, block.end) for block in mine]
        return []

    def tls_runs(
        self, page: DirtyPage, tid: int, read: ReadMemory, pointers: Set[int]
    ) -> List[DirtyRange]:
        """The page's runs, cut at thread-locals, with thread and name.  `tid`: who ran;
        `pointers`: addresses of malloc's own thread-locals and of what they point to."""
        tids = {tid, page.thread if page.kind == "tls" and page.thread else tid}
        out: List[DirtyRange] = []
        for run in page.ranges:
            pieces = [run]
            for each in tids:
                pieces = [p for piece in pieces for p in self._in_blocks(piece, each, read)]
            out += pieces
        return [_malloc_pointer(r, read, pointers) if r.kind == "tls" else r for r in out]

    def linker_runs(self, runs: List[DirtyRange], base: int, read: ReadMemory) -> List[DirtyRange]:
        """`runs` with the role of those in the vector of thread-local blocks of the thread whose
        thread pointer is `base`: the linker fills it when a thread first uses a library's
        (glibc's sysdeps/x86_64/nptl/tls.h, tcbhead_t; elf/dl-tls.c)."""
        try:
            at = read_word(read, base + DTV_POINTER)
            count = read_word(read, at - DTV_ENTRY)
        except UffdError:
            return runs
        if count > MAX_BLOCKS:
            return runs
        cut = (at - DTV_ENTRY, at + (count + 1) * DTV_ENTRY, "linker")
        if runs[-1].address + len(runs[-1].before) <= cut[0] or runs[0].address >= cut[1]:
            return runs
        return [piece for run in runs for piece in _with_roles(run, [cut])]

    def _in_blocks(self, run: DirtyRange, tid: int, read: ReadMemory) -> List[DirtyRange]:
        end = run.address + len(run.before)
        for block in self.tls_blocks(tid, read):
            if run.address < block.end and block.start < end and not run.kind:
                return _by_symbol(run, block)
        return [run]

    def tls_blocks(self, tid: int, read: ReadMemory) -> List[TlsBlock]:
        """A thread's blocks, those of libraries that dlopen() loaded included."""
        blocks = self._blocks.get(tid) or self._present.get(tid)
        if blocks is None:
            blocks = self._present[tid] = self._find_blocks(tid, read)[0]
        return blocks

    def thread_local(self, tid: int, address: int, read: ReadMemory) -> Tuple[str, int]:
        """Name in the ELF file and start of the thread-local at `address`; "" and 0 for none."""
        for block in self.tls_blocks(tid, read):
            if block.start <= address < block.end:
                index = bisect_right(block.symbols, (address - block.start, 1 << 65, "")) - 1
                if index >= 0:
                    start, size, name = block.symbols[index]
                    if name and address < block.start + start + size:
                        return name, block.start + start
        return "", 0

    def look(self, tid: int, before: ReadMemory, which_all: bool) -> None:
        """A report of that thread begins.  Blocks that were there before it stay where they are;
        those that came with it are gone again where it was undone."""
        self._present.clear()
        if which_all:
            self._blocks.clear()
        elif tid not in self._blocks:
            blocks, complete = self._find_blocks(tid, before)
            if complete:
                self._blocks[tid] = blocks

    def forget(self) -> None:
        """The blocks may lie elsewhere now."""
        self._blocks.clear()

    def _find_blocks(self, tid: int, read: ReadMemory) -> Tuple[List[TlsBlock], bool]:
        try:
            base = self.snapshot.thread(tid).registers.thread_pointer
        except KeyError:
            return [], True
        by_bias = {m.bias: m for m in self.modules if m.image and m.image.tls_size()[0]}
        maps = self._link_maps(read)
        found: List[TlsBlock] = []
        complete = True
        for link_map, bias in maps[:MAX_BLOCKS]:
            module = by_bias.get(bias)
            if module is None or module.image is None:
                continue
            try:
                at = self.snapshot.tls_address(tid, 0, link_map, base, read)
            except UffdError:
                complete = False  # not allocated yet
                continue
            end = at + module.image.tls_size()[0]
            found.append(TlsBlock(at, end, tid, self._of_module(module), module.path))
        control = self.snapshot.classify(base)
        if base and control.kind == "tls":
            found.append(self._control_block(base, tid))
        return sorted(found, key=lambda b: b.start), complete

    def _control_block(self, base: int, tid: int) -> TlsBlock:
        """struct pthread, which is at the thread pointer or ends there."""
        size = PAGE_SIZE
        tls = self.snapshot.arch.tls
        if tls is not None:
            while size > 64 and self.snapshot.classify(base - size).kind != "tls":
                size -= 16
            return TlsBlock(base - size, base + tls.tcb, tid, [(0, size + tls.tcb, THREAD_CONTROL)])
        while size > 64 and self.snapshot.classify(base + size - 1).kind != "tls":
            size -= 64
        return TlsBlock(base, base + size, tid, [(0, size, THREAD_CONTROL)])

    def _link_maps(self, read: ReadMemory) -> List[Tuple[int, int]]:
        """(address of the link map, l_addr); the program alone where there is no linker."""
        main = self.snapshot.main
        if main is None:
            return []
        found: List[Tuple[int, int]] = []
        try:
            for at in link_maps(main, read):
                found.append((at, read_word(read, at)))
        except UffdError:
            pass
        return found or [(0, main.bias)]

    def _of_module(self, module: Module) -> List[Symbol]:
        key = id(module.image)
        if key not in self._symbols and module.image is not None:
            self._symbols[key] = thread_locals(module.image)
        return self._symbols.get(key, [])


def _joins(one: Mapping, other: Mapping) -> bool:
    """Whether two mappings may as well be one: anonymous, alike and side by side."""
    return one.end == other.start and one.prot == other.prot and not one.name and not other.name


def _got(image: ElfImage) -> Optional[Range]:
    try:
        tags = image.dynamic()
    except ElfError:
        return None
    at, size = tags.get(DT_PLTGOT, 0), tags.get(DT_PLTRELSZ, 0)
    if not at or not 0 < size <= 1 << 24:
        return None
    return at, at + GOT_RESERVED + size // RELA_BYTES * 8


def part(run: DirtyRange, start: int, end: int, role: str = "") -> Optional[DirtyRange]:
    """[start, end) of `run` without the equal bytes at its ends, in that role; None when all are
    equal."""
    low, high = max(0, start - run.address), max(0, end - run.address)
    before, after = run.before[low:high], run.after[low:high]
    if before == after:
        return None
    skip = 0
    while before[skip] == after[skip]:
        skip += 1
    last = len(before)
    while before[last - 1] == after[last - 1]:
        last -= 1
    address = run.address + low + skip
    return DirtyRange(
        address, before[skip:last], after[skip:last], run.kind, run.thread, role,
        run.symbol, run.symbol_start,
    )  # fmt: skip


def _with_roles(run: DirtyRange, cuts: Sequence[Tuple[int, int, str]]) -> List[DirtyRange]:
    out: List[DirtyRange] = []
    at, end = run.address, run.address + len(run.before)
    for start, stop, role in sorted(cuts):
        if stop <= at or start >= end:
            continue
        pieces = part(run, at, start), part(run, max(at, start), stop, role)
        out += [piece for piece in pieces if piece is not None]
        at = max(at, stop)
    rest = part(run, at, end) if at < end else None
    return [*out, rest] if rest is not None else out


def _by_symbol(run: DirtyRange, block: TlsBlock) -> List[DirtyRange]:
    """The run cut at the block's variables; what lies outside stays as it is."""
    pieces = [
        part(run, run.address, block.start),
        part(run, block.end, run.address + len(run.before)),
    ]
    out = [piece for piece in pieces if piece is not None]
    at, end = max(run.address, block.start), min(run.address + len(run.before), block.end)
    while at < end:
        offset = at - block.start
        index = bisect_right(block.symbols, (offset, 1 << 65, "")) - 1
        start, size, name = block.symbols[index] if index >= 0 else (0, 0, "")
        if offset < start + size:
            upto = block.start + start + size
        else:
            name = ""
            last = index + 1 == len(block.symbols)
            upto = block.end if last else block.start + block.symbols[index + 1][0]
        piece = part(run, at, min(upto, end))
        if piece is not None:
            piece.kind, piece.thread = "tls", block.tid
            piece.symbol, piece.symbol_start = name, block.start + start if name else 0
            out.append(piece)
        at = upto
    return sorted(out, key=lambda r: r.address)


def _malloc_pointer(run: DirtyRange, read: ReadMemory, pointers: Set[int]) -> DirtyRange:
    """With its role where the thread-local is malloc's own: its cache, its arena."""
    word = run.address & -8
    try:
        own = word in pointers or int.from_bytes(read(word, 8), "little") in pointers
    except UffdError:
        own = False
    return dataclasses.replace(run, role="malloc") if own else run
