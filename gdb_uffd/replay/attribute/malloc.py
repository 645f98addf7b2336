"""glibc's malloc in a stopped process: where its heaps and its own words lie.

Sources: glibc's malloc/malloc.c and malloc/arena.c.  The layouts are recognised by what is in them,
for a distribution's C library has no symbols for any of it.  A heap whose headers cannot be is
left alone: nothing of it is told.
"""

from __future__ import annotations

import struct
from bisect import bisect_right, insort
from dataclasses import field
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, MemoryUnavailable
from gdb_uffd.replay.views import View
from gdb_uffd.trace.places import ARENA
from gdb_uffd.trace.source import Snapshot

FLAGS = 7
MMAPPED = lib.CHUNK_MMAPPED
STATE_SIZES = (2200, 2192, 2112, 2184)
"""sizeof(struct malloc_state) of 2.27 to 2.42, in 2.26, since 2.43, and before; other ones are
tried too."""

HEAP_INFO_SIZES = (48, 32)
"""sizeof(heap_info) since 2.35, before."""

ARENA_TEST = 8  # its default, on 64-bit
CACHES = {0x290: (128, 64), 0x250: (64, 64), 0x300: (152, 76)}
"""Size of the chunk of a tcache_perthread_struct -> (offset of `entries`, how many): since 2.30,
2.26 to 2.29, since 2.42."""

HEADERS_MAX = 4096  # of blocks with mappings of their own that one report looks at
LISTED_MAX = 1 << 20  # entries of the lists of one kind; what is behind counts as in use
FIRST_CHUNK_WITHIN = 1 << 16  # a static program puts its thread-locals before the first chunk
DATA_MAX = 4 << 20  # bytes of a C library's data that are searched for main_arena
LARGE = 1024  # chunks from this size have two more links (fd_nextsize, bk_nextsize)


@dataclass(frozen=True)
class HeapArea:
    """One heap: the first chunk, and where it ends before and after; 0 where it was not there."""

    start: int
    end_before: int
    end_after: int
    arena: int = 0  # of a secondary heap: its struct malloc_state

    @property
    def end(self) -> int:
        return max(self.end_before, self.end_after)


@dataclass
class Known:
    """What stays true of a heap until a call is kept."""

    indexes: Dict[int, Any] = field(default_factory=dict)  # first chunk -> struct heap_index
    firsts: Dict[int, int] = field(default_factory=dict)  # heap's base -> its first chunk
    caches: Dict[int, int] = field(default_factory=dict)  # fs_base -> address of its `tcache`
    mangled: Optional[bool] = None  # whether links of free lists are protected
    words: Optional[List[Tuple[int, int]]] = None  # ranges of malloc's own variables
    main: Any = None  # of them main_arena (attribute/layouts.State), where it is found


class HasAreas(Protocol):
    """Knows which addresses are a heap's."""

    def area(self, address: int) -> Optional[object]:
        """The heap around `address`, None for none."""
        ...


def plausible(view: View, at: int, limit: int, count: int = 4) -> bool:
    """Whether `count` chunks follow one another from `at`, or fewer that end at `limit`."""
    for _ in range(count):
        if at == limit:
            return True
        word = view.word(at + 8)
        if word is None or word & MMAPPED:
            return False
        size = word & ~FLAGS
        if size < 16 or size % 16 or at + size > limit:
            return False
        at += size
    return True


class Heaps:
    """Finds the heap that an address lies in; `known` may be kept from call to call."""

    def __init__(
        self,
        known: Known,
        before: View,
        after: View,
        brk: Tuple[Tuple[int, int], Tuple[int, int]],
        begins: Callable[[View, int, int], int],
    ) -> None:
        """`begins` finds the first chunk of the brk heap, [start, end) in that state; 0 for none
        (attribute/layouts.main_begins)."""
        self._known, self._begins = known, begins
        self.before, self.after = before, after
        self._brk = brk
        self._areas: Dict[int, Optional[HeapArea]] = {}

    def area(self, address: int) -> Optional[HeapArea]:
        """The brk heap or the secondary heap around `address`; None when it is none of malloc's."""
        (low, was), (start, now) = self._brk
        low = low or start
        base = 0 if low and low <= address < max(was, now) else address & -ARENA
        if base not in self._areas:
            self._areas[base] = self._secondary(base) if base else self._main(low, was, now)
        found = self._areas[base]
        return found if found is not None and found.start <= address < found.end else None

    def _main(self, low: int, was: int, now: int) -> Optional[HeapArea]:
        first = self._known.firsts.get(low)
        if not first and was > low:
            first = self._known.firsts[low] = self._begins(self.before, low, was)
        if first:
            return HeapArea(first, was if was > first else 0, now)
        # A heap that the call made begins in the state after it.
        first = self._begins(self.after, low, now)
        return HeapArea(first, 0, now) if first else None

    def _secondary(self, base: int) -> Optional[HeapArea]:
        ends = [secondary_end(view, base) for view in (self.before, self.after)]
        view = self.before if ends[0] else self.after
        if not any(ends):
            return None
        arena = view.word(base) or 0
        for first in _secondary_firsts(base, arena):
            if plausible(view, first, max(ends)):
                return HeapArea(first, ends[0], ends[1], arena)
        return None

    def index(self, area: HeapArea) -> Any:
        """The index of a heap's boundaries in the state before."""
        index = self._known.indexes.get(area.start)
        if index is None:
            index = ffi.gc(ffi.new("struct heap_index *"), lib.heap_index_deinit)
            lib.heap_index_init(index, area.start)
            self._known.indexes[area.start] = index
        return index


def first_chunk(view: View, low: int, end: int) -> int:
    """The first chunk of the brk heap, 0 when there is none."""
    if plausible(view, low, end):
        return low
    try:
        raw = view.read(low, min(end - low, FIRST_CHUNK_WITHIN) & ~15)
    except MemoryUnavailable:
        return 0
    # The thread's cache is the first thing that malloc allocates.
    for at in range(0, len(raw), 16):
        size = int.from_bytes(raw[at + 8 : at + 16], "little") & ~FLAGS
        if size in CACHES and plausible(view, low + at, end, 64):
            return low + at
    return 0


def secondary_end(view: View, base: int) -> int:
    """Where the heap at `base` ends by its struct heap_info; 0 when there is none."""
    try:
        arena, previous, size, usable = struct.unpack("<4Q", view.read(base, 32))
    except MemoryUnavailable:
        return 0
    inside = base < arena < base + PAGE_SIZE and not previous
    if not inside and (previous % ARENA or not previous or not arena):
        return 0
    good = 0 < size <= usable <= ARENA and size % 16 == 0
    return base + size if good else 0


def _secondary_firsts(base: int, arena: int) -> Iterator[int]:
    """Where the first chunk of a secondary heap may be: behind its arena, else behind its
    heap_info, aligned so that the caller's memory is (sysmalloc, _int_new_arena)."""
    if base < arena < base + PAGE_SIZE:
        for size in STATE_SIZES:
            yield arena + size + 15 & ~15
        yield from range(arena + 2048 & ~15, arena + 3072, 16)
    else:
        yield from (base + size for size in HEAP_INFO_SIZES)


def mapped_chunk(view: View, address: int, low: int, high: int) -> Optional[Tuple[int, int]]:
    """The chunk with a mapping of its own around `address`, as (start, size); None.

    [low, high): the mapping; several chunks may have grown together to one.
    """
    at = low
    for _ in range(4096):
        size = _mapped_size(view, at, high)
        if not size:
            break
        if at <= address < at + size:
            return at, size
        at += size
    # Something else begins the mapping: the nearest header below.
    at = address & -PAGE_SIZE
    for _ in range(1024):
        if at < low:
            return None
        size = _mapped_size(view, at, high)
        if size:
            return (at, size) if address < at + size else None
        at -= PAGE_SIZE
    return None


class MappedChunks:
    """Chunks with mappings of their own in one state of memory, for addresses that ascend: each
    header is looked at once, and so is what is none."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._chains: Dict[int, List[Tuple[int, int]]] = {}  # by the mapping's start
        self._barren: Dict[int, int] = {}  # up to here no header reaches further
        self._steps = HEADERS_MAX

    def find(self, address: int, low: int, high: int) -> Optional[Tuple[int, int]]:
        """The chunk around `address`, as (start, size); [low, high): the mapping."""
        chain = self._chains.get(low)
        if chain is None:
            chain = self._chains[low] = list(self._from(low, high))
        index = bisect_right(chain, (address, 1 << 64)) - 1
        if index >= 0 and address < sum(chain[index]):
            return chain[index]
        # Something else begins the mapping: the nearest header below.
        at, floor = address & -PAGE_SIZE, self._barren.get(low, low)
        self._barren[low] = at + PAGE_SIZE
        while at >= floor and self._steps > 0:
            self._steps -= 1
            size = _mapped_size(self._view, at, high)
            if size:
                insort(chain, (at, size))
                return (at, size) if address < at + size else None
            at -= PAGE_SIZE
        return None

    def _from(self, at: int, high: int) -> Iterator[Tuple[int, int]]:
        for _ in range(HEADERS_MAX):
            size = _mapped_size(self._view, at, high)
            if not size:
                return
            yield at, size
            at += size


def mapped_bytes(word: int) -> int:
    """What a chunk with a mapping of its own takes of it, by its size word: since 2.43 that is less
    by the header's 16 bytes."""
    size = word & ~FLAGS
    return size + 16 if size % PAGE_SIZE == PAGE_SIZE - 16 else size


def _mapped_size(view: View, at: int, high: int) -> int:
    word = view.word(at + 8)
    if word is None or word & FLAGS != MMAPPED:
        return 0
    size = mapped_bytes(word)
    # prev_size is the room before an aligned chunk: nothing but 0 at a mapping's start.
    good = size >= PAGE_SIZE and size % PAGE_SIZE == 0 and at + size <= high and not view.word(at)
    return size if good else 0


def is_library(path: str) -> bool:
    """Whether that file is the C library, by its name."""
    return path.rsplit("/", 1)[-1].startswith(("libc.so", "libc-", "libpthread"))


def library_data(snapshot: Snapshot) -> Iterator[Tuple[int, int]]:
    """Writable file mappings that can hold malloc's own variables: the C library's, else the
    program's (a static one)."""
    left = DATA_MAX
    for library in (True, False):
        for m in snapshot.mappings:
            program = snapshot.main is not None and snapshot.main.holds(m.start)
            wanted = is_library(m.name) if library else program
            if m.prot & PROT_WRITE and m.name.startswith("/") and wanted and left > 0:
                left -= m.end - m.start
                yield m.start, min(m.end, m.start + DATA_MAX)


def cache_pointer(
    view: View, places: Sequence[Tuple[int, int]], heaps: HasAreas
) -> Optional[Tuple[int, int]]:
    """(address of a thread's variable `tcache`, what it points to); None.  `places`: where it may
    lie, half-open."""
    for low, high in places:
        for start in range(low & -PAGE_SIZE, high, PAGE_SIZE):
            at, end = max(start, low), min(start + PAGE_SIZE, high)
            try:
                raw = view.read(at, end - at & ~7)
            except MemoryUnavailable:
                continue
            for offset, value in enumerate(struct.unpack(f"<{len(raw) // 8}Q", raw)):
                if value % 16 or not value or heaps.area(value) is None:
                    continue
                if is_cache(view, value):
                    return at + 8 * offset, value
    return None


def is_cache(view: View, at: int) -> bool:
    """Whether a thread's cache may lie there: by its chunk's size, and for its entries."""
    size = view.word(at - 8)
    if size is None or (size & ~FLAGS) not in CACHES:
        return False
    return all(e % 16 == 0 and (e == 0 or e > PAGE_SIZE) for e in _entries(view, at, size))


def _entries(view: View, at: int, size: int) -> Sequence[int]:
    skip, count = CACHES[size & ~FLAGS]
    try:
        return struct.unpack(f"<{count}Q", view.read(at + skip, 8 * count))
    except MemoryUnavailable:
        return ()


class Heads(NamedTuple):
    """A row of `number` heads of free lists at `at`; the link is at `skip` behind each entry, which
    is `back` behind its chunk's start."""

    at: int
    number: int
    skip: int
    back: int


def cache_heads(view: View, cache: int) -> Heads:
    """Those of a thread's cache."""
    skip, count = CACHES.get((view.word(cache - 8) or 0) & ~FLAGS, (0, 0))
    return Heads(cache + skip, count, 0, 16)


class Listed(NamedTuple):
    """Free chunks, as far as their lists lead.  `link`: where a list leads no further, what a link
    leads to, and `entry` the chunk that it stands in (0: the head); else 0."""

    chunks: List[int]
    entry: int
    link: int


_room = ffi.new("uint64_t[]", LISTED_MAX)
_stop = ffi.new("uint64_t[2]")


def listed(view: View, rows: Sequence[Heads], known: Known) -> Listed:
    """The entries of all these lists.  Whether links are protected, a list that is not empty tells
    by coming to its end."""
    if known.mangled is not None:
        return _listed(view, rows, known.mangled)
    either = [_listed(view, rows, mangled) for mangled in (True, False)]
    if either[0].chunks:
        known.mangled = not either[0].link or bool(either[1].link)
    return either[0 if known.mangled else 1]


def _listed(view: View, rows: Sequence[Heads], mangled: bool) -> Listed:
    chunks: List[int] = []
    entry = link = 0
    for row in rows:
        found = lib.heap_lists(
            view.native, row.at, row.number, row.skip, mangled, _room, LISTED_MAX, _stop
        )
        chunks += [at - row.back for at in _room[0:found]]
        if _stop[1] and not link:
            entry, link = max(0, int(_stop[0]) - row.back), int(_stop[1])
    return Listed(chunks, entry, link)
