"""Every list of free blocks of glibc's malloc: the caches of threads, the fastbins, the bins."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.heap import HEADER
from gdb_uffd.protocol.model import Damage, FreeList, MemoryUnavailable
from gdb_uffd.replay.attribute import layouts, malloc
from gdb_uffd.replay.attribute.damage import at_link
from gdb_uffd.replay.attribute.layouts import MallocState
from gdb_uffd.replay.views import View

FIRST_SHOWN = 8
"""Blocks of one list that are told in the order in which they are linked."""

KEYS_MAX = 4096
"""Entries of caches whose keys are compared."""

VOTES = 4
"""Lists more that come to their end with links protected than without, or the reverse, by which it
is taken for sure."""

KEY_AT = 8  # offsetof(tcache_entry, key), since 2.29

ENDS = {
    lib.LIST_UNALIGNED: "link-unaligned",
    lib.LIST_UNREADABLE: "link-unreadable",
    lib.LIST_LOOP: "link-loop",
    lib.LIST_BACK: "link-back",
    lib.LIST_FULL: "list-long",
}


@dataclass(frozen=True)
class Cache:
    """A thread's tcache_perthread_struct at `address`; `tid` 0 where the thread is not known."""

    address: int
    tid: int


@dataclass
class _Head:
    """Where one list begins."""

    told: FreeList
    link: int  # the first entry; of a bin: the chunk that it pretends to be
    skip: int = 0
    back: int = HEADER
    double: bool = False
    cache: int = 0  # the thread's cache that it is in


class FreeLists:
    """All lists in one state of memory.  `native` are the lists by number from 1 on, `entries`
    their chunks, sorted."""

    def __init__(
        self, view: View, arenas: Sequence[MallocState], caches: Sequence[Cache], cache_count: int
    ) -> None:
        self._view = view
        heads = [h for cache in caches for h in self._of_cache(cache, cache_count)]
        heads += [h for arena in arenas for h in self._fastbins(arena)]
        self.mangled = self._is_mangled(heads)
        heads += [h for arena in arenas for h in self._bins(arena)]
        self.count = len(heads) + 1
        self.native = ffi.new("struct heap_list[]", self.count)
        self.entries = ffi.gc(ffi.new("struct heap_entries *"), lib.heap_list_deinit)
        self._heads = heads
        self._damage: List[Tuple[Damage, int]] = []
        self._first: Dict[int, List[int]] = {}
        keyed: List[Tuple[int, int]] = []
        for number, head in enumerate(heads, 1):
            came = int(self.entries.count)
            self._follow(head, number)
            found = [self.entries.at[i].at + HEADER
                     for i in range(came, min(self.entries.count, came + FIRST_SHOWN))]  # fmt: skip
            self._first[number] = found
            if head.told.kind == "tcache" and len(keyed) < KEYS_MAX:
                keyed += [(number, at) for at in found]
        lib.heap_list_sort(self.entries)
        self._check_keys(keyed)

    def told(self, number: int) -> Optional[FreeList]:
        """List `number` as it was found; None for 0."""
        if not 0 < number < self.count:
            return None
        native, told = self.native[number], self._heads[number - 1].told
        return dataclasses.replace(
            told,
            blocks=int(native.entries),
            bytes=int(native.bytes),
            damaged=native.end != lib.LIST_WHOLE,
            first=self._first.get(number, []),
        )

    def all(self) -> List[FreeList]:
        """Those that are not empty, or damaged."""
        found = (self.told(number) for number in range(1, self.count))
        return [f for f in found if f is not None and (f.blocks or f.damaged or f.count > 0)]

    def damage(self) -> List[Damage]:
        """What is wrong with the lists themselves."""
        return [dataclasses.replace(each, list=self.told(n)) for each, n in self._damage]

    def broken_arenas(self) -> List[int]:
        """Arenas of which a bin cannot be followed to its end."""
        return [
            head.told.arena
            for number, head in enumerate(self._heads, 1)
            if head.double and self.native[number].end != lib.LIST_WHOLE
        ]

    # -- where they begin -----------------------------------------------------------------------

    def _of_cache(self, cache: Cache, most: int) -> List[_Head]:
        size = (self._view.word(cache.address - 8) or 0) & ~malloc.FLAGS
        skip, number = malloc.CACHES.get(size, (0, 0))
        if not number:
            return []
        try:
            raw = self._view.read(cache.address, skip + 8 * number)
        except MemoryUnavailable:
            return []
        width = 1 if skip == number else 2
        counts = [int.from_bytes(raw[i * width : (i + 1) * width], "little") for i in range(number)]
        if number > layouts.TCACHE_SMALL_BINS:  # since 2.42 they are slots that are left
            most = max([most, *counts])
            counts = [most - count for count in counts]
        found = []
        for index in range(number):
            link = int.from_bytes(raw[skip + 8 * index : skip + 8 * index + 8], "little")
            low, high = layouts.cache_sizes(index)
            told = FreeList("tcache", index, low, high, 0, cache.tid, count=counts[index])
            found.append(_Head(told, link, cache=cache.address))
        return found

    def _fastbins(self, arena: MallocState) -> List[_Head]:
        found = []
        for index in range(layouts.FASTBINS if arena.layout.fastbins else 0):
            link = self._view.word(arena.address + arena.layout.fastbins + 8 * index) or 0
            size = 32 + 16 * index
            told = FreeList("fastbin", index, size, size + 16, arena.address)
            found.append(_Head(told, link, layouts.LINK_AT, 0))
        return found

    def _bins(self, arena: MallocState) -> List[_Head]:
        found = []
        for number in range(1, layouts.SIZES_OF_BINS + 1):
            kind, low, high = layouts.bin_sizes(number)
            told = FreeList(kind, number, low, high, arena.address)
            found.append(_Head(told, arena.first_bin + 16 * (number - 1), double=True))
        return found

    # -- following them -------------------------------------------------------------------------

    def _is_mangled(self, heads: Sequence[_Head]) -> bool:
        """Whether links are protected: more lists come to an end that way."""
        votes = 0
        for head in heads:
            if abs(votes) >= VOTES:
                break
            for mangled in (True, False) if head.link else ():
                scrap = ffi.new("struct heap_list *")
                entries = ffi.gc(ffi.new("struct heap_entries *"), lib.heap_list_deinit)
                self._single(head, mangled, entries, scrap, 0)
                votes += (1 if mangled else -1) * (scrap.end == lib.LIST_WHOLE)
        return votes >= 0

    def _single(self, head: _Head, mangled: bool, entries: Any, to: Any, number: int) -> None:
        rc = lib.heap_list_single(
            self._view.native, head.link, head.skip, head.back, mangled, entries, to, number
        )
        check(rc, doing="following a free list")

    def _follow(self, head: _Head, number: int) -> None:
        to = ffi.addressof(self.native, number)
        to.low, to.high = head.told.low, head.told.high or (1 << 64) - 1
        to.single = not head.double
        if head.double:
            rc = lib.heap_list_double(self._view.native, head.link, self.entries, to, number)
            check(rc, doing="following a bin")
        else:
            self._single(head, self.mangled, self.entries, to, number)
        count = head.told.count
        if to.end != lib.LIST_WHOLE:
            hidden = self.mangled and not head.double
            found = at_link(self._view, int(to.end_at), int(to.link), hidden, ENDS[to.end])
            self._damage.append((found, number))
        elif head.told.kind == "tcache" and count != to.entries:
            self._damage.append((Damage("tcache-count", 0, count, int(to.entries)), number))

    def _check_keys(self, entries: Sequence[Tuple[int, int]]) -> None:
        """Each entry of a cache holds a key: the cache's own address from 2.29 to 2.33, since 2.34
        a number drawn at the start.  Another was written over it after the block was freed."""
        keys = {at: self._view.word(at + KEY_AT) or 0 for _, at in entries}
        own = {at: self._heads[number - 1].cache for number, at in entries}
        if sum(keys[at] == own[at] for at in keys) * 2 <= len(keys):
            (usual, times), *_ = Counter(keys.values()).most_common(1) or [(0, 0)]
            if times < 2 or times * 2 <= len(keys):
                return  # before 2.29 there was none
            own = dict.fromkeys(keys, usual)
        for number, at in entries:
            if keys[at] != own[at]:
                self._damage.append((Damage("tcache-key", at, keys[at], own[at]), number))
