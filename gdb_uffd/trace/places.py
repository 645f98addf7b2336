"""What an address belongs to: data of which file, whose thread-locals, heap, whose stack."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import field
from typing import Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PROT_WRITE, Mapping, MemoryUnavailable, ThreadState, page_ceil
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import AddressPlace, ReadMemory
from gdb_uffd.trace.symbols import read_word

ARENA = 64 << 20
"""HEAP_MAX_SIZE of glibc on 64-bit (malloc/arena.c): secondary heaps are aligned to it."""
BRK_REACH = 1 << 30  # how far above the executable a randomised brk can start (arch_randomize_brk)
HEAP_GROWTH = 16 << 30  # an unmapped address this little above the heap counts as its growth
STACK_OVERRUN = 1 << 20  # bytes that a stack that overflows goes beyond its end at most
STACK_GROWTH = 1 << 30  # and this little below the main stack
MUSL_PTHREAD_SIZE = 200  # struct pthread, musl 1.2
MAX_STATIC_TLS = 64 << 20
AT_RANDOM = 25


@dataclass
class Places:
    """Answers `classify`; made once a snapshot, the expensive parts on first use.

    `heap` and `stack` are half-open ranges, (0, 0) when they were not found.
    """

    mappings: Sequence[Mapping]
    modules: Sequence[Module]
    threads: Sequence[ThreadState]
    pid: int
    heap: Tuple[int, int]
    stack: Tuple[int, int]
    read: ReadMemory
    symbol: Callable[[str], Optional[int]]
    _starts: List[int] = field(default_factory=list)
    _bss: List[Tuple[int, int, str]] = field(default_factory=list)
    _stacks: Dict[int, List[Tuple[int, int, int]]] = field(default_factory=dict)
    _tls: Optional[List[Tuple[int, int, int]]] = None
    _arenas: Dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._starts = [m.start for m in self.mappings]
        self._bss = bss_ranges(self.modules, self.mappings)
        for thread in self.threads:
            registers = thread.registers
            mapping = self._stack_of(registers.sp)
            if mapping is not None:
                entry = (registers.thread_pointer, registers.sp, thread.tid)
                self._stacks.setdefault(mapping.start, []).append(entry)

    def _stack_of(self, sp: int) -> Optional[Mapping]:
        """The mapping of a stack pointer; of one that left its stack downwards, the one above."""
        found, index = self.mapping(sp), bisect_right(self._starts, sp)
        left = found is None or not found.prot
        if left and index < len(self.mappings) and self._starts[index] - sp <= STACK_OVERRUN:
            return self.mappings[index]
        return found

    def mapping(self, address: int) -> Optional[Mapping]:
        """The recorded mapping that contains `address`."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.mappings[index].end:
            return self.mappings[index]
        return None

    def classify(self, address: int) -> AddressPlace:
        """What the byte at `address` belongs to (see source.AddressPlace)."""
        mapping = self.mapping(address)
        if mapping is None:
            return self._grown(address)
        if mapping.name and not mapping.name.startswith("["):
            return AddressPlace("data", mapping.name)
        if self._tls is None:
            self._tls = self._tls_ranges()
        block = _find(self._tls, address)
        if block is not None:
            return AddressPlace("tls", "[tls]", block[2])
        image = _find(self._bss, address)
        if image is not None:
            return AddressPlace("data", image[2])
        if self.heap[0] <= address < self.heap[1] or self._in_arena(address, mapping):
            return AddressPlace("heap", "[heap]")
        owner = self._stack_owner(address, mapping)
        if owner is not None:
            return AddressPlace("stack", "[stack]", owner)
        return AddressPlace("anonymous", mapping.name or "[anon]")

    def _grown(self, address: int) -> AddressPlace:
        """An address that was not mapped when the snapshot was taken: the heap and the main
        stack grow into the gap next to them."""
        index = bisect_right(self._starts, address)
        above = self.mappings[index].start if index < len(self.mappings) else 1 << 64
        below = self.mappings[index - 1].end if index else 0
        heap_end, stack_start = self.heap[1], self.stack[0]
        if heap_end and below == heap_end and address < heap_end + HEAP_GROWTH:
            return AddressPlace("heap", "[heap]")
        if stack_start and above == stack_start and address >= stack_start - STACK_GROWTH:
            return AddressPlace("stack", "[stack]", self.pid)
        return AddressPlace("anonymous", "[anon]")

    def _stack_owner(self, address: int, mapping: Mapping) -> Optional[int]:
        """The thread whose stack this is.

        Several stacks may lie in one mapping (guard pages need not split it since glibc 2.42):
        each then reaches up to its thread's TCB, or else down to its stack pointer.
        """
        entries = self._stacks.get(mapping.start, [])
        if self.stack[0] <= address < self.stack[1]:
            main = [e for e in entries if e[2] == self.pid]
            return self.pid if main or not entries else entries[0][2]
        if len(entries) <= 1:
            return entries[0][2] if entries else None
        topped = [e for e in entries if e[1] <= e[0] < mapping.end and address < e[0]]
        if topped:
            return min(topped)[2]
        under = [e for e in entries if e[1] <= address]
        return max(under, key=lambda e: e[1])[2] if under else min(entries, key=lambda e: e[1])[2]

    def _in_arena(self, address: int, mapping: Mapping) -> bool:
        """Whether `address` lies in a secondary heap of glibc's malloc: struct heap_info
        {ar_ptr, prev, size, mprotect_size} at a 64 MiB boundary (malloc/arena.c)."""
        base = address & ~(ARENA - 1)
        if base not in self._arenas:
            self._arenas[base] = self._is_heap_info(base, base, 0)
        if not self._arenas[base]:
            return False
        if not mapping.prot & PROT_WRITE:
            return True  # what a growing heap makes writable (gcore records it as readable)
        try:
            used = read_word(self.read, base + 24)
        except MemoryUnavailable:
            return False
        return not mapping.name and address < base + used

    def _is_heap_info(self, base: int, first: int, depth: int) -> bool:
        mapping = self.mapping(base)
        if mapping is None or mapping.name or not mapping.prot & PROT_WRITE:
            return False
        try:
            arena, previous, size, usable = (read_word(self.read, base + 8 * i) for i in range(4))
        except MemoryUnavailable:
            return False
        if not 0 < size <= usable <= ARENA or usable % 4096 or size % 16:
            return False
        if previous == 0:
            return base + 32 <= arena <= base + 256
        home = arena & ~(ARENA - 1)
        if previous % ARENA or depth or home == base:
            return False
        return self._is_heap_info(home, first, depth + 1)

    def _tls_ranges(self) -> List[Tuple[int, int, int]]:
        """[static TLS block, end of struct pthread) of each thread, sorted; in variant I
        (arch.VariantI) the other way round."""
        ranges: List[Tuple[int, int, int]] = []
        below = self._static_tls_size()
        above = self._pthread_size()
        for thread in self.threads:
            base = thread.registers.thread_pointer
            mapping = self.mapping(base)
            if not base or mapping is None:
                continue
            low, high = (above, below) if thread.registers.arch.tls else (below, above)
            end = min(base + high, mapping.end)
            ranges.append((max(base - low, mapping.start), end, thread.tid))
        ranges.sort()
        return ranges

    def _pthread_size(self) -> int:
        at = self.symbol("_thread_db_sizeof_pthread")
        if at is not None:
            try:
                size = read_word(self.read, at, 4)
            except MemoryUnavailable:
                return self._default_pthread_size()
            if 64 <= size <= 1 << 16:
                return size
        return MUSL_PTHREAD_SIZE if self._is_musl() else self._default_pthread_size()

    def _default_pthread_size(self) -> int:
        return max((t.registers.arch.pthread_bytes for t in self.threads[:1]), default=0)

    def _is_musl(self) -> bool:
        return any("musl" in m.path.rsplit("/", 1)[-1] for m in self.modules)

    def _static_tls_size(self) -> int:
        """Bytes of static TLS below the TCB (variant I: from the TCB on).

        The sum over the loaded objects is too much when some were loaded by dlopen, so it is
        cut to the lowest block that a dtv (at fs_base + 8) names right below the TCB; the
        layout is the same in every thread.
        """
        total = 0
        for module in self.modules:
            if module.image is not None:
                size, align = module.image.tls_size()
                total = (total + size + align - 1) // align * align
        total = min(total, MAX_STATIC_TLS)
        tls = next((t.registers.arch.tls for t in self.threads), None)
        if tls is not None:
            return total + tls.tcb
        musl = self._is_musl()
        for thread in self.threads[:16]:
            base = thread.registers.thread_pointer
            try:
                dtv = read_word(self.read, base + 8)
                # glibc: {pointer, to_free} entries, the count in front; musl: count, pointers.
                step, at = (8, dtv) if musl else (16, dtv - 16)
                count = read_word(self.read, at)
                if not 0 < count <= 4096:
                    continue
                raw = self.read(dtv + step, step * count)
            except MemoryUnavailable:
                continue
            blocks = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), step)]
            near = [base - b for b in blocks if 0 < base - b <= total]
            if near:
                return max(near)
        return total


T = TypeVar("T", str, int)


def _find(ranges: Sequence[Tuple[int, int, T]], address: int) -> Optional[Tuple[int, int, T]]:
    """The range of a sorted list that contains `address` (the latest start wins)."""
    # (address, above any end) sorts after every range that starts at `address`.
    index = bisect_right(ranges, (address, 1 << 65)) - 1
    if index >= 0 and ranges[index][0] <= address < ranges[index][1]:
        return ranges[index]
    return None


def bss_ranges(
    modules: Sequence[Module], mappings: Sequence[Mapping]
) -> List[Tuple[int, int, str]]:
    """(start, end, path) of the anonymous memory that belongs to each module: from the end of
    its last file mapping to the end of its program headers, or the one anonymous
    writable mapping that follows when those are not known."""
    writable = [m for m in mappings if m.prot & PROT_WRITE]
    anonymous = {m.start: m for m in writable if m.name in ("", "[heap]")}
    by_end = {m.end: m for m in writable}
    found: List[Tuple[int, int, str]] = []
    for module in modules:
        if module.image is None and module.file is not None:
            continue  # a data file: what follows it is somebody else's
        for r in module.ranges:
            following = anonymous.get(r.end)
            if following is None or (module.image is None and r.end not in by_end):
                continue
            end = module.top if module.image is not None else following.end
            end = min(end, following.end)
            if r.end < end:
                found.append((r.end, end, printable(module.path)))
    found.sort()
    return found


def find_heap(
    mappings: Sequence[Mapping],
    executable: Optional[Module],
    symbol: Callable[[str], Optional[int]],
    read: ReadMemory,
) -> Tuple[int, int]:
    """The brk heap as a half-open range, (0, 0) when it is not found.

    It ends at the C library's __curbrk rounded up.  Without that symbol: the first
    anonymous writable mapping above the executable, if nothing else comes before it.
    """
    top = executable.top if executable is not None else 0
    anonymous = [m for m in mappings if not m.name and m.prot & PROT_WRITE]
    at = symbol("__curbrk")
    if at is not None:
        try:
            end = page_ceil(read_word(read, at))
        except MemoryUnavailable:
            end = 0
        by_end = {m.end: m for m in anonymous}
        low = end
        while low in by_end and low > top:
            low = max(by_end[low].start, top)
        return (low, end) if low < end else (0, 0)
    if not top:
        return 0, 0
    start = end = 0
    for m in mappings:
        if m.start < top or (start and m.start != end):
            continue
        if m.name or m.prot != 3 or (not start and m.start - top > BRK_REACH):
            break
        start, end = start or m.start, m.end  # after fork() it may be several
    return start, end


def find_stack(
    mappings: Sequence[Mapping], pid: int, threads: Sequence[ThreadState], random: Optional[int]
) -> Tuple[int, int]:
    """The main stack: the mapping of AT_RANDOM's bytes, which the kernel puts at its top
    (fs/binfmt_elf.c), else that of the main thread's stack pointer; else (0, 0)."""
    pointers = [random] if random else []
    pointers += [t.registers.sp for t in threads if t.tid == pid]
    for pointer in pointers:
        for m in mappings:
            if m.start <= pointer < m.end and not m.name and m.prot & PROT_WRITE:
                return m.start, m.end
    return 0, 0
