"""Who points into a block: words in data, thread-locals, stacks and registers, and through other
blocks of the heap back to such a root.  No types are known here: any word may be a pointer."""

from __future__ import annotations

import time
from dataclasses import field
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.heap import Reference
from gdb_uffd.protocol.model import PROT_WRITE, HeapBlock, Registers
from gdb_uffd.replay.attribute.free_lists import Cache
from gdb_uffd.replay.attribute.layouts import MallocState
from gdb_uffd.replay.attribute.owners import Owners
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.replay.views import View

REFERENCES_MAX = 4096
"""Words that point into one block which are remembered."""

LEVELS_MAX = 8
"""KnownBlocks between a root and the one that is asked for."""

FRONTIER_MAX = 512
"""KnownBlocks whose holders are looked for at once."""

STEP_BYTES = 32 << 20
"""Memory that is searched between two looks at the clock."""

ROOM = 1 << 15
ZEROS_MAX = 64 << 20
"""Bytes of a mapping that was never touched which are searched where something ran."""

INSIDE_MAX = 1 << 20
"""Bytes of a block whose words are looked at."""

FREED_MAX = 64

_ORDER = ("data", "tls", "register", "stack", "anonymous")
"""Roots, the one that a name is most likely to be had for first."""


class KnownBlocks(Protocol):
    """What is known of the blocks in memory (heap_image.HeapImage)."""

    view: View
    owners: Owners
    states: List[MallocState]
    caches: List[Cache]

    def block_around(self, address: int) -> Optional[HeapBlock]:
        """The block that holds `address`."""


@dataclass
class NoBlocks:
    """Of an allocator whose blocks are not read."""

    view: View
    owners: Owners
    states: List[MallocState] = field(default_factory=list)
    caches: List[Cache] = field(default_factory=list)

    def block_around(self, address: int) -> Optional[HeapBlock]:
        """None is known."""
        return None


@dataclass
class _Found:
    """The words that point into one block."""

    roots: List[Reference]
    inner: List[Reference]  # in other blocks
    more: int = 0


class Holders:
    """One search; `deadline` in time.monotonic's seconds.  `complete` turns False when it was cut,
    or memory could not be had."""

    def __init__(
        self,
        vessel: Vessel,
        image: KnownBlocks,
        registers: Callable[[int], Registers],
        deadline: float,
    ) -> None:
        self.complete = True
        self._image = image
        self._owners = image.owners
        self._snapshot = vessel.snapshot
        self._registers = registers
        self._deadline = deadline
        self._known: Dict[int, _Found] = {}
        self._refs = ffi.new("struct heap_ref[]", ROOM)
        self._next, self._lost = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._ranges = list(_searched(vessel))
        self._own = [(s.address, s.address + s.layout.size) for s in image.states]
        self._caches = {cache.address for cache in image.caches}
        floor = vessel.snapshot.arch.red_zone
        self._floors = {t.tid: registers(t.tid).sp - floor for t in vessel.snapshot.threads}

    def look(self, blocks: Iterable[HeapBlock]) -> None:
        """Search for the holders of all these at once."""
        self._fetch(blocks)

    def of(self, block: HeapBlock) -> _Found:
        """All words that point into it, outside of malloc's own."""
        self._fetch([block])
        return self._known[block.start]

    def chain(self, block: HeapBlock) -> List[Reference]:
        """From a root, word by word, to the block: each word lies in the block that the one before
        points into.  [] where none is found."""
        above: Dict[int, Tuple[Reference, HeapBlock]] = {}  # by a block: how it leads on
        level = [block]
        seen = {block.start}
        for _ in range(LEVELS_MAX):
            self._fetch(level)
            for each in level:
                roots = self._known[each.start].roots
                if roots:
                    best = min(roots, key=lambda r: (_ORDER.index(r.kind), not self._of_main(r)))
                    return self._down(best, each, above)
            following: List[HeapBlock] = []
            for each in level:
                for ref in self._known[each.start].inner:
                    if ref.block is not None and ref.block.start not in seen:
                        seen.add(ref.block.start)
                        above[ref.block.start] = (ref, each)
                        following.append(ref.block)
            level = following[:FRONTIER_MAX]
            if not level or time.monotonic() > self._deadline:
                break
        return []

    def _of_main(self, ref: Reference) -> bool:
        return self._owners.of_program(ref.mapping)

    @staticmethod
    def _down(
        root: Reference, at: HeapBlock, above: Dict[int, Tuple[Reference, HeapBlock]]
    ) -> List[Reference]:
        out = [root]
        while at.start in above:
            ref, at = above[at.start]
            out.append(ref)
        return out

    def freed_inside(self, block: HeapBlock) -> List[Reference]:
        """Words of the block that point to where a block begins or goes on that is free."""
        out: List[Reference] = []
        size = min(block.size, INSIDE_MAX) & -8
        for at in range(block.start, block.start + size, 8):
            value = self._image.view.word(at)
            if value is None or len(out) >= FREED_MAX:
                break
            target = self._image.block_around(value)
            if target is not None and target.state == "free" and value >= target.start:
                out.append(Reference(at, value, "heap", block=target))
        return out

    # -- searching ------------------------------------------------------------------------------

    def _fetch(self, blocks: Iterable[HeapBlock]) -> None:
        """Search all memory for words into those that were not looked for yet."""
        wanted = sorted(
            (b for b in blocks if b.start not in self._known), key=lambda block: block.start
        )
        if not wanted:
            return
        for block in wanted:
            self._known[block.start] = _Found([], [])
        starts = ffi.new("uint64_t[]", [b.start for b in wanted])
        ends = ffi.new("uint64_t[]", [b.start + max(b.size, 1) for b in wanted])
        self._in_registers(wanted)
        for low, high in self._ranges:
            at = low
            while at < high:
                if time.monotonic() > self._deadline:
                    self.complete = False
                    return
                stop = min(high, at + STEP_BYTES)
                count = lib.heap_refs_find(
                    self._image.view.native, at, stop, starts, ends, len(wanted), self._refs, ROOM,
                    self._next, self._lost,
                )  # fmt: skip
                self.complete = self.complete and not self._lost[0]
                for i in range(count):
                    ref = self._refs[i]
                    self._take(wanted[ref.wanted], int(ref.at), int(ref.value))
                at = int(self._next[0])

    def _take(self, block: HeapBlock, at: int, value: int) -> None:
        found = self._known[block.start]
        if len(found.roots) + len(found.inner) >= REFERENCES_MAX:
            found.more += 1
            return
        if any(low <= at < high for low, high in self._own):
            return
        inside = self._image.block_around(at)
        if inside is not None:
            # malloc's own words are no holders: headers, links of free blocks, caches.
            theirs = inside.state not in ("used", "mapped") or at < inside.start
            if not theirs and inside.start != block.start and inside.start not in self._caches:
                found.inner.append(Reference(at, value, "heap", "[heap]", block=inside))
            return
        place = self._snapshot.classify(at)
        if place.kind == "heap" and self._own:
            return  # a heap's own header, or what could not be read of it
        tid = place.thread or 0
        if place.kind == "stack" and at < self._floors.get(tid, 0):
            return  # nobody's any more
        name, start = "", 0
        if tid:
            name, start = self._owners.thread_local(tid, at, self._image.view.read)
        kind = "tls" if name else place.kind if place.kind in _ORDER else "anonymous"
        found.roots.append(Reference(at, value, kind, place.mapping, tid, name, start=start))

    def _in_registers(self, wanted: Sequence[HeapBlock]) -> None:
        for thread in self._snapshot.threads:
            registers = self._registers(thread.tid)
            for name, value in zip(registers.arch.names, registers.gpr):
                for block in wanted:
                    if block.start <= value < block.start + max(block.size, 1):
                        ref = Reference(0, value, "register", "", thread.tid, name)
                        self._known[block.start].roots.append(ref)


def _searched(vessel: Vessel) -> Iterator[Tuple[int, int]]:
    """Where a pointer may lie: writable memory that is there; of what was never touched only where
    something ran, and not all of a huge one."""
    for region in vessel.regions:
        if not region.prot & PROT_WRITE or region.kind == lib.REGION_UNAVAILABLE:
            continue
        start, end = int(region.start), int(region.end)
        if region.flags & lib.REGION_GROWTH or region.kind == lib.REGION_ZERO:
            if not vessel.running:
                continue
            end = min(end, start + ZEROS_MAX)
        yield start, end
