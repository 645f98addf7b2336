"""Where glibc's malloc keeps its own words, for the releases from 2.23 on.

Sources: malloc/malloc.c (struct malloc_state, malloc_par, tcache_perthread_struct) and
malloc/arena.c (struct _heap_info).  A distribution's C library has no symbols for any of it: a
layout is taken where what it would mean is so.
"""

from __future__ import annotations

import struct
from typing import Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable
from gdb_uffd.replay.attribute import malloc
from gdb_uffd.replay.views import View
from gdb_uffd.trace.places import ARENA
from gdb_uffd.trace.source import Snapshot

Range = Tuple[int, int]

SIZES_OF_BINS = 127  # NBINS - 1
FASTBINS = 10
LINK_AT = 16  # offsetof(struct malloc_chunk, fd)
OWN_MAX = 4096  # of a hostile file's data may be full of what looks like one
ARENAS_MAX = 4096
OWN_BINS = 4  # of them that are empty: there are always some, each of another size
TCACHE_SMALL_BINS = 64


@dataclass(frozen=True)
class StateLayout:
    """Offsets in struct malloc_state; `fastbins` 0 where there are none."""

    fastbins: int
    top: int
    bins: int
    next: int
    attached: int
    system: int
    size: int


LAYOUTS = (
    StateLayout(0, 8, 24, 2072, 2088, 2096, 2112),  # since 2.43: without fastbins
    StateLayout(16, 96, 112, 2160, 2176, 2184, 2200),  # since 2.27: have_fastchunks is in it
    StateLayout(8, 88, 104, 2152, 2168, 2176, 2192),  # 2.23 to 2.26
)


@dataclass(frozen=True)
class MallocState:
    """A struct malloc_state as it stands in memory; `bins`: where their pretended chunks begin."""

    address: int
    layout: StateLayout
    top: int
    next: int
    attached: int
    system: int

    @property
    def first_bin(self) -> int:
        """The chunk that the head of bin 1, the unsorted one, pretends to be (bin_at)."""
        return self.address + self.layout.bins - LINK_AT


def read_state(view: View, address: int, layout: StateLayout) -> Optional[MallocState]:
    """The struct at `address`; None where it cannot be had."""
    try:
        raw = view.read(address, layout.size)
    except MemoryUnavailable:
        return None

    def word(at: int) -> int:
        return int.from_bytes(raw[at : at + 8], "little")

    words = (layout.top, layout.next, layout.attached, layout.system)
    return MallocState(address, layout, *(word(at) for at in words))


def find_main(snapshot: Snapshot, view: View) -> Optional[MallocState]:
    """main_arena: in the C library's data (or a static program's), where empty bins point to
    themselves, and the list of arenas, the count of threads and the memory got so far are what
    they can be."""
    for start, end in malloc.library_data(snapshot):
        words = _words(view, start, end)
        own = [
            i
            for i in range(len(words) - 1)
            if words[i] == words[i + 1] == start + 8 * i - LINK_AT and words[i]
        ]
        for at in _starts(own[:OWN_MAX]):
            for layout in LAYOUTS:
                state = read_state(view, start + 8 * at - layout.bins, layout)
                if state is not None and _is_main(view, state, own, at):
                    return state
    return None


def _starts(own: Sequence[int]) -> Iterator[int]:
    """Indexes at which the bins may begin, the likeliest first: empty ones are two words apart."""
    seen = set()
    for index in own:
        for back in range(SIZES_OF_BINS):
            at = index - 2 * back
            if at >= 0 and at not in seen:
                seen.add(at)
                yield at


def _is_main(view: View, state: MallocState, own: Sequence[int], first: int) -> bool:
    empty = sum(1 for i in own if first <= i < first + 2 * SIZES_OF_BINS and not (i - first) % 2)
    unused = state.top in (0, state.first_bin) and not state.system
    top = unused or (state.top >= PAGE_SIZE and state.top % 16 == 0 and state.system > 0)
    if empty < OWN_BINS or not top or state.attached >= 1 << 22:
        return False
    return _is_ring(view, state)


def _is_ring(view: View, main: MallocState) -> bool:
    """Whether the list of arenas leads through others back to that one: the layouts differ in how
    far an arena begins before its bins, and only the right one does."""
    at = main.next
    for _ in range(ARENAS_MAX):
        if at == main.address:
            return True
        following = view.word(at + main.layout.next) if _is_secondary(at) else None
        if following is None:
            return False
        at = following
    return False


def _is_secondary(address: int) -> bool:
    """Whether an arena may lie there that is not the main one: behind a heap_info."""
    return address % 16 == 0 and address % ARENA in malloc.HEAP_INFO_SIZES and address >= ARENA


def _words(view: View, start: int, end: int) -> Sequence[int]:
    out = bytearray()
    for page in range(start, end, PAGE_SIZE):
        try:
            out += view.read(page, min(PAGE_SIZE, end - page))
        except MemoryUnavailable:
            out += bytes(min(PAGE_SIZE, end - page))
    return struct.unpack(f"<{len(out) // 8}Q", out[: len(out) & ~7])


@dataclass(frozen=True)
class Parameters:
    """Of struct malloc_par, at [start, end): how many mapped blocks there are and their bytes
    (mappings, whole); where the heap begins; how many blocks a list of a thread's cache takes (0:
    has none)."""

    start: int
    end: int
    mapped: int
    mapped_bytes: int
    base: int
    cache_count: int


def find_parameters(snapshot: Snapshot, view: View, heap: Range) -> Optional[Parameters]:
    """mp_: `sbrk_base` is where the heap starts (in a static program, behind what it allocated
    before), and some words before it stand the defaults of top_pad, 128 KiB, and arena_test."""
    for start, end in malloc.library_data(snapshot):
        words = _words(view, start, end)
        for index, value in enumerate(words):
            if not heap[0] <= value < min(heap[1], heap[0] + malloc.FIRST_CHUNK_WITHIN):
                continue
            # Since 2.35 three more words, since 2.43 four; until 2.23 one.
            for back, mapped_at in ((12, 60), (13, 68), (9, 40), (10, 40)):
                first = index - back
                if first < 0 or words[first + 3] != malloc.ARENA_TEST:
                    continue
                if words[first + 1] % PAGE_SIZE or words[first + 2] == 0:
                    continue
                at = start + 8 * first
                raw = view.read(at + mapped_at, 4)
                bytes_at = index - 2 if back != 10 else index - 3
                cache = words[index + 3] if index + 3 < len(words) else 0
                count = int.from_bytes(raw, "little", signed=True)
                cache = cache if cache < 1 << 16 else 0
                end = start + 8 * (index + 5)
                return Parameters(at, end, count, words[bytes_at], value, cache)
    return None


def main_begins(snapshot: Snapshot, view: View, heap: Range) -> Tuple[int, Optional[Parameters]]:
    """Where the first chunk of the heap in the break `heap` lies, 0 for none: where malloc says
    that it began, which damage in its chunks does not hide; else where chunks follow one another.
    """
    said = find_parameters(snapshot, view, heap)
    if said is not None:
        return said.base + 15 & ~15, said
    return malloc.first_chunk(view, *heap), None


def secondary_heaps(snapshot: Snapshot, view: View) -> Iterator[Tuple[int, int, int]]:
    """(start, end, arena) of every heap that is not the main one: struct heap_info at a boundary of
    HEAP_MAX_SIZE."""
    for mapping in snapshot.mappings:
        if mapping.name:
            continue
        at = mapping.start + ARENA - 1 & -ARENA
        for base in range(at, min(mapping.end, at + (ARENA << 12)), ARENA):
            end = malloc.secondary_end(view, base)
            if end:
                yield base, end, view.word(base) or 0


def first_of_secondary(view: View, base: int, end: int, arena: int, layout: StateLayout) -> int:
    """The first chunk of such a heap: behind its arena, else behind its heap_info; 0."""
    if base < arena < base + PAGE_SIZE:
        return arena + layout.size + 15 & ~15
    candidates = [base + size for size in malloc.HEAP_INFO_SIZES]
    return next((at for at in candidates if malloc.plausible(view, at, end, 1)), 0)


def large_bin(number: int) -> Range:
    """The sizes of chunks in large bin `number` (64 to 126), half-open; 0: no limit.  malloc.c,
    largebin_index_64."""
    ends: List[int] = []
    for first, last, shift, base in ((64, 96, 6, 48), (97, 111, 9, 91), (112, 119, 12, 110),
                                     (120, 123, 15, 119), (124, 125, 18, 124)):  # fmt: skip
        ends += [(n - base + 1) << shift for n in range(first, last + 1)]
    index = number - 64
    low = ends[index - 1] if index else 1024
    return low, ends[index] if index < len(ends) else 0


def bin_sizes(number: int) -> Tuple[str, int, int]:
    """(kind, lowest, behind the highest size of a chunk) of bin `number`, 1 to 127."""
    if number == 1:
        return "unsorted", 32, 0
    if number < 64:
        return "small", 16 * number, 16 * number + 16
    return ("large", *large_bin(min(number, 126)))


def cache_sizes(index: int) -> Range:
    """The sizes of chunks in list `index` of a thread's cache; those from 64 on (since 2.42) are of
    sizes up to a power of two."""
    if index < TCACHE_SMALL_BINS:
        return 32 + 16 * index, 48 + 16 * index
    low = 1024 << (index - TCACHE_SMALL_BINS)
    return max(low, 1056), low * 2
