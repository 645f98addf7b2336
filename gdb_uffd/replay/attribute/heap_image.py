"""glibc's whole heap in one state of memory: its arenas, every block, the free lists, and what is
wrong with them."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.heap import HEADER, Arena, HeapRange
from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, Damage, FreeList, HeapBlock, page_ceil
from gdb_uffd.replay.attribute import layouts, malloc
from gdb_uffd.replay.attribute.free_lists import Cache, FreeLists
from gdb_uffd.replay.attribute.layouts import MallocState, Parameters
from gdb_uffd.replay.attribute.owners import Owners
from gdb_uffd.replay.views import View

Range = Tuple[int, int]

FLAWS = {
    lib.FLAW_UNREADABLE: "unreadable",
    lib.FLAW_ALIGNMENT: "size-unaligned",
    lib.FLAW_SMALL: "size-small",
    lib.FLAW_BEYOND: "size-beyond",
    lib.FLAW_MMAPPED: "size-mmapped",
    lib.FLAW_PREV_SIZE: "prev-size",
    lib.FLAW_TOP: "top",
    lib.FLAW_NOT_A_BLOCK: "list-not-a-block",
    lib.FLAW_IN_USE: "list-in-use",
    lib.FLAW_LIST_SIZE: "list-size",
    lib.FLAW_TWICE: "list-twice",
    lib.FLAW_UNLISTED: "unlisted",
}

FREE = (lib.CHUNK_FREE, lib.CHUNK_LISTED)

_EXPECTS = (lib.FLAW_BEYOND, lib.FLAW_PREV_SIZE, lib.FLAW_TOP)
"""Flaws that a limit, or the other size, goes with."""

BREAKS_MAX = 64
"""Places in one heap behind which the walk begins anew."""


@dataclass
class Stretch:
    """One heap: [start, end) of its chunks, which `chunks` (native) holds as far as they are
    known."""

    arena: int  # index in HeapImage.states
    start: int
    end: int
    chunks: Any
    unread: int = 0


@dataclass
class _Faults:
    """What is wrong with the chunks of one stretch."""

    native: Any = field(default_factory=lambda: ffi.new("struct heap_faults *"))

    def all(self) -> Iterator[Any]:
        """Those that there was room for."""
        for i in range(min(self.native.count, lib.FAULTS_MAX)):
            yield self.native.at[i]


class HeapImage:
    """Made once, for one view; good as long as that is.  `trouble` is the one Damage that says why
    nothing is known, where that is so."""

    def __init__(self, owners: Owners, view: View, brk: Range) -> None:
        self.owners, self.view = owners, view
        self.snapshot = owners.snapshot
        self.states: List[MallocState] = []
        self.stretches: List[Stretch] = []
        self.mapped = ffi.gc(ffi.new("struct chunks *"), lib.heap_chunks_deinit)
        self.parameters: Optional[Parameters] = None
        self.caches: List[Cache] = []
        self.lists: Optional[FreeLists] = None
        self.damage: List[Damage] = []
        self.damage_count = 0
        self._brk = brk
        main = layouts.find_main(self.snapshot, view)
        if main is None:
            self._tell(Damage("no-arena", 0))
            return
        self._find(main)
        self._find_caches()
        count = self.parameters.cache_count if self.parameters else 0
        self.lists = FreeLists(view, self.states, self.caches, count)
        faults = [self._walk(stretch) for stretch in self.stretches]
        for stretch, each in zip(self.stretches, faults):
            lib.heap_walk_mark(
                view.native, stretch.chunks, self.lists.entries, self.lists.native,
                self.lists.count, each.native,
            )  # fmt: skip
        for stretch, each in zip(self.stretches, faults):
            self._note(stretch, each)
        for damage in self.lists.damage():
            self._tell(self._with_before(damage))
        self._outside()
        self._find_mapped()

    def _tell(self, damage: Damage) -> None:
        self.damage_count += 1
        if len(self.damage) < lib.FAULTS_MAX:
            self.damage.append(damage)

    # -- where it is ----------------------------------------------------------------------------

    def _find(self, main: MallocState) -> None:
        """The arenas and their heaps."""
        layout = main.layout
        self.states.append(main)
        heap = self._main_range(main)
        if heap is not None:
            self._add(0, *heap)
        by_address: Dict[int, int] = {main.address: 0}
        for base, end, arena in layouts.secondary_heaps(self.snapshot, self.view):
            if arena not in by_address:
                state = layouts.read_state(self.view, arena, layout)
                if state is None or len(self.states) >= layouts.ARENAS_MAX:
                    continue
                by_address[arena] = len(self.states)
                self.states.append(state)
            first = layouts.first_of_secondary(self.view, base, end, arena, layout)
            if first:
                self._add(by_address[arena], first, end)

    def _add(self, arena: int, start: int, end: int) -> None:
        chunks = ffi.gc(ffi.new("struct chunks *"), lib.heap_chunks_deinit)
        self.stretches.append(Stretch(arena, start, end, chunks))

    def _main_range(self, main: MallocState) -> Optional[Range]:
        low, now = self._brk
        if not low <= main.top < now:  # the break could not be moved: mappings took its place
            low, now = self.owners.range_of(main.top, ()) if main.top else (0, 0)
        if not main.top or main.top == main.first_bin or low >= now:
            return None
        first, self.parameters = layouts.main_begins(self.snapshot, self.view, (low, now))
        return first or low, now

    def _find_caches(self) -> None:
        for thread in self.snapshot.threads:
            places = self.owners.cache_places(thread.tid, self.view.read)
            found = malloc.cache_pointer(self.view, places, self)
            if found is not None:
                self.caches.append(Cache(found[1], thread.tid))
        # A cache is the first thing that a thread allocates in an arena of its own.
        known = {cache.address for cache in self.caches}
        for stretch in self.stretches:
            at = stretch.start + HEADER
            if at not in known and malloc.is_cache(self.view, at):
                self.caches.append(Cache(at, 0))

    def area(self, address: int) -> Optional[Stretch]:
        """The heap around `address`; as malloc.Heaps."""
        return next((s for s in self.stretches if s.start <= address < s.end), None)

    # -- its chunks -----------------------------------------------------------------------------

    def _walk(self, stretch: Stretch) -> _Faults:
        """All chunks; behind damage it goes on where a list or the top says that one begins."""
        top, at, faults = self.states[stretch.arena].top, stretch.start, _Faults()
        top = top if stretch.start <= top < stretch.end else 0
        for _ in range(BREAKS_MAX):
            rc = lib.heap_walk(
                self.view.native, at, stretch.end, top, stretch.chunks, faults.native
            )
            check(min(rc, 0), doing="walking the heap")
            if rc == lib.WALK_WHOLE:
                return faults
            if rc == lib.WALK_FULL:
                self._tell(Damage("too-many", 0, lib.WALK_CHUNKS_MAX))
                return faults
            behind = int(stretch.chunks.broken_at)
            if rc == lib.WALK_FENCED and not behind < top:
                return faults
            following = self._next_known(behind, stretch, top)
            stretch.unread += (following or stretch.end) - behind
            if not following:
                return faults
            at = following
        return faults

    def _next_known(self, behind: int, stretch: Stretch, top: int) -> int:
        """The next chunk behind `behind` that is known by other means; 0."""
        assert self.lists is not None
        entries = self.lists.entries
        low, high = 0, int(entries.count)
        while low < high:
            middle = (low + high) // 2
            if entries.at[middle].at <= behind:
                low = middle + 1
            else:
                high = middle
        for index in range(low, min(low + 64, int(entries.count))):
            at = int(entries.at[index].at)
            if at < stretch.end and malloc.plausible(self.view, at, stretch.end, 8):
                return at
        return top if top > behind else 0

    def _note(self, stretch: Stretch, faults: _Faults) -> None:
        assert self.lists is not None
        quiet = self.states[stretch.arena].address in self.lists.broken_arenas() or stretch.unread
        hidden = int(faults.native.count)
        for fault in faults.all():
            hidden -= 1
            if fault.flaw == lib.FLAW_UNLISTED and quiet:
                continue  # it may be in what could not be followed
            block = int(fault.at) + HEADER
            expected = int(fault.other) if fault.flaw in _EXPECTS else None
            told = Damage(
                FLAWS[fault.flaw], block, int(fault.value), expected, self.lists.told(fault.list)
            )
            self._tell(self._with_before(told))
        self.damage_count += hidden

    def _with_before(self, damage: Damage) -> Damage:
        """With the block in front of the one that is damaged."""
        if not damage.block:
            return damage
        before = self.block_at(damage.block - HEADER - 1)
        return dataclasses.replace(damage, before=before)

    def _outside(self) -> None:
        """Entries of lists that lie in no heap."""
        assert self.lists is not None
        entries, indexes = self.lists.entries, ffi.new("size_t[]", lib.FAULTS_MAX)
        for index in indexes[0 : lib.heap_list_unmet(entries, indexes, lib.FAULTS_MAX)]:
            entry = entries.at[index]
            if self.area(entry.at) is None:
                found = self.lists.told(entry.list)
                self._tell(Damage("list-not-a-block", int(entry.at) + HEADER, list=found))

    def _find_mapped(self) -> None:
        """Blocks with mappings of their own, in anonymous memory that is none of the heaps'."""
        heaps = sorted((s.start & -PAGE_SIZE, page_ceil(s.end)) for s in self.stretches)
        for mapping in self.snapshot.mappings:
            if mapping.name or not mapping.prot & PROT_WRITE:
                continue
            at = mapping.start
            for low, high in [*heaps, (mapping.end, mapping.end)]:
                if low < at or low > mapping.end:
                    at = max(at, min(high, mapping.end))
                    continue
                rc = lib.heap_walk_mapped(self.view.native, at, low, self.mapped)
                check(rc, doing="looking for mapped blocks")
                at = max(at, high)

    # -- what is told ---------------------------------------------------------------------------

    def block_at(self, address: int) -> Optional[HeapBlock]:
        """The block whose chunk holds `address`, its header included."""
        found = self.chunk_at(address)
        return self.block(*found) if found is not None else None

    def block_around(self, address: int) -> Optional[HeapBlock]:
        """The block that holds `address`, or whose size stands there: the first word of a chunk
        belongs to the block before."""
        return self.block_at(address - 8) if address >= 8 else None

    def chunk_at(self, address: int) -> Optional[Tuple[Any, int]]:
        """(the native array, the index in it) of the chunk that holds `address`."""
        stretch = self.area(address)
        for chunks in [stretch.chunks] if stretch is not None else [self.mapped]:
            index = lib.heap_find(chunks, address)
            if index >= 0:
                return chunks, int(index)
        return None

    def block(self, chunks: Any, index: int) -> HeapBlock:
        """A chunk as it is told."""
        chunk = chunks.at[index]
        if chunks == self.mapped:
            return HeapBlock(int(chunk.at) + HEADER, int(chunk.size) - HEADER, "mapped")
        states = {
            lib.CHUNK_USED: "used",
            lib.CHUNK_FREE: "free",
            lib.CHUNK_LISTED: "free",
            lib.CHUNK_TOP: "top",
            lib.CHUNK_FENCE: "fence",
        }
        found: Optional[FreeList] = self.lists.told(chunk.list) if self.lists else None
        size = max(0, int(chunk.size) - 8)
        return HeapBlock(int(chunk.at) + HEADER, size, states.get(chunk.state, "unknown"), found)

    def arenas(self) -> List[Arena]:
        """The arenas, the main one first."""
        return [self._arena(index) for index in range(len(self.states))]

    def _arena(self, index: int) -> Arena:
        state, count = self.states[index], ffi.new("struct heap_count *")
        blocks, sizes = [0] * 8, [0] * 8
        ranges = []
        for stretch in self.stretches:
            if stretch.arena == index:
                lib.heap_walk_count(stretch.chunks, count)
                blocks = [a + b for a, b in zip(blocks, count.blocks)]
                sizes = [a + b for a, b in zip(sizes, count.bytes)]
                ranges.append(HeapRange(stretch.start, stretch.end, stretch.unread))
        top = state.top if state.top != state.first_bin else 0
        return Arena(
            state.address,
            index == 0,
            ranges,
            blocks[lib.CHUNK_USED],
            sizes[lib.CHUNK_USED],
            sum(blocks[each] for each in FREE),
            sum(sizes[each] for each in FREE),
            top,
            sizes[lib.CHUNK_TOP],
            state.system,
            self._tids(state.address),
        )

    def _tids(self, arena: int) -> List[int]:
        """Threads one of whose thread-locals of the C library is that arena's address."""
        found = []
        for thread in self.snapshot.threads[:1024]:
            for low, high in self.owners.arena_places(thread.tid, self.view.read):
                if any(self.view.word(at) == arena for at in range(low, high, 8)):
                    found.append(thread.tid)
                    break
        return found

    def blocks(self, free_only: bool, most: int) -> Tuple[List[HeapBlock], int]:
        """The first `most` blocks by address, and how many there are more."""
        out: List[HeapBlock] = []
        total, count = 0, ffi.new("struct heap_count *")
        every: Sequence[Any] = [*(s.chunks for s in self.stretches), self.mapped]
        for chunks in every:
            lib.heap_walk_count(chunks, count)
            total += sum(count.blocks[state] for state in FREE) if free_only else chunks.count
            for index in range(chunks.count):
                if len(out) >= most:
                    break
                if not free_only or chunks.at[index].state in FREE:
                    out.append(self.block(chunks, index))
        return out, total - len(out)
