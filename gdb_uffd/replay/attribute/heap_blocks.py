"""Blocks of malloc's heap in a report: which ones hold the changed bytes, which came and went."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    Block,
    CallReport,
    Damage,
    DirtyPage,
    DirtyRange,
    HeapTotals,
)
from gdb_uffd.replay.attribute import damage, layouts, leftovers, malloc
from gdb_uffd.replay.attribute.layouts import MallocState
from gdb_uffd.replay.attribute.malloc import HeapArea, Heaps, Known
from gdb_uffd.replay.attribute.owners import Owners, part
from gdb_uffd.replay.views import View

Range = Tuple[int, int]

GAP_PAGES = 16
"""Heap pages that lie further apart are looked at on their own."""

HEAP_PAGES_MAX = 1024
"""Heap pages of one report whose bytes are told apart; the others count as the program's."""

BLOCKS_MAX = 2048
"""Blocks that one report lists."""


@dataclass
class _Span:
    """Neighbouring chunks before and after, and the pages they were looked at for."""

    was: Any
    is_: Any


@dataclass
class HeapWork:
    """One report's heap.  The fields are those of refine.Facts, and what is known from earlier."""

    before: View
    after: View
    owners: Owners
    known: Known
    tid: int
    fs_base: int
    brk: Tuple[Range, Range]
    born: Sequence[Range]
    gone_blocks: Sequence[int]
    rooms: Sequence[int] = ()
    early: Sequence[Range] = ()
    caches: List[int] = field(default_factory=list)  # of free chunks, of the thread that ran
    totals: List[int] = field(default_factory=lambda: [0, 0, 0, 0])
    blocks: Dict[int, Block] = field(default_factory=dict)
    rooms_bytes: int = 0  # mappings of their own that such rooms have
    trouble: Optional[Damage] = None  # why not all of the heap could be read

    def __post_init__(self) -> None:
        self._mapped = [malloc.MappedChunks(view) for view in (self.before, self.after)]
        self._cached: Set[int] = set()  # chunks that the running thread's cache held before
        self._arenas: Set[int] = set()
        self._last: Optional[Block] = None  # the mapped block that was met last

    def tell(self, report: CallReport) -> None:
        """Fill in the report's blocks and totals, and the roles of its runs on heap pages."""
        heaps = Heaps(self.known, self.before, self.after, self.brk, self._begins)
        by_area: Dict[int, Tuple[HeapArea, List[DirtyPage]]] = {}
        listed = [p for p in report.pages if p.meant]
        for page in listed:
            if page.kind == "heap" and page.bytes_changed:
                area = self._area_of(heaps, page)
                if area is None:
                    self._cannot(Damage("no-heap", page.start))
                    continue
                by_area.setdefault(area.start, (area, []))[1].append(page)
            elif page.kind == "anonymous" and page.bytes_changed:
                self._mapped_block(page)
        if by_area:
            self._find_cache(heaps)
        for area, pages in by_area.values():
            self._area(heaps, area, pages)
        for room in self.rooms:
            word = self.after.word(room - 8) or 0
            if word & malloc.FLAGS == malloc.MMAPPED and any(s <= room < e for s, e in self.born):
                self.rooms_bytes += malloc.mapped_bytes(word)
        for size in self.gone_blocks:
            self._count("freed", size)
        report.blocks = sorted(self.blocks.values(), key=lambda b: b.start)[:BLOCKS_MAX]
        report.heap = None if self.trouble else HeapTotals(*self.totals)
        report.heap_trouble = self.trouble

    def _begins(self, view: View, low: int, end: int) -> int:
        return layouts.main_begins(self.owners.snapshot, view, (low, end))[0]

    def _cannot(self, why: Damage) -> None:
        self.trouble = self.trouble or why

    @staticmethod
    def _area_of(heaps: Heaps, page: DirtyPage) -> Optional[HeapArea]:
        """The heap of a page; its own header (a secondary heap's) is part of it."""
        area = heaps.area(page.end - 1)
        return (
            area if area is not None else heaps.area(page.ranges[0].address if page.ranges else 0)
        )

    def _find_cache(self, heaps: Heaps) -> None:
        """The running thread's cache of free chunks, before or after."""
        base = self.fs_base
        places = self.owners.cache_places(self.tid, self.after.read)
        if not places:
            self._cannot(Damage("no-thread-locals", 0))
        at = self.known.caches.get(base)
        for view in (self.before, self.after):
            value = view.word(at) if at else None
            if value:
                self.caches.append(value)
                continue
            found = malloc.cache_pointer(view, places, heaps) if not at else None
            if found is not None:
                at = self.known.caches[base] = found[0]
                self.caches.append(found[1])
        self.caches = sorted(set(self.caches))

    def _area(self, heaps: Heaps, area: HeapArea, pages: List[DirtyPage]) -> None:
        index = heaps.index(area)
        listed = [self._listed(view, area) for view in (self.before, self.after)]
        reached = 0
        for first, last in _clusters(pages):
            if last <= reached:
                continue
            start = max(first, area.start)
            anchor = area.start
            if area.end_before:
                # From a chunk earlier: the first word of one may belong to the one before.
                end = max(min(start, area.end_before) - 32, area.start)
                anchor = lib.heap_index_find(index, self.before.native, end, area.end_before)
            anchor = max(anchor, reached) if anchor else reached
            if not anchor:
                at, limit = int(index.next), area.end_before
                self._cannot(
                    damage.at_header(self.before, at, limit, self._before_header(area, at))
                )
                return
            span = _Span(ffi.new("struct chunks *"), ffi.new("struct chunks *"))
            try:
                reached = self._span(area, span, anchor, last, listed, pages)
            finally:
                lib.heap_chunks_deinit(span.was)
                lib.heap_chunks_deinit(span.is_)

    def _span(
        self,
        area: HeapArea,
        span: _Span,
        anchor: int,
        last: int,
        listed: List[Any],
        pages: List[DirtyPage],
    ) -> int:
        """Look at the chunks of one stretch; where it ends."""
        rc = lib.heap_span(
            self.before.native, self.after.native, anchor, last, area.end_before,
            area.end_after, span.was, span.is_,
        )  # fmt: skip
        check(min(rc, 0), doing="walking the heap")
        for chunks, free in zip((span.was, span.is_), listed):
            lib.heap_mark_listed(chunks, free, len(free))
        if rc == 1:
            self._cannot(Damage("too-many", anchor, lib.CHUNKS_MAX))
        self._damaged(area, span)
        if rc == 0:
            totals = ffi.new("struct heap_totals *")
            with self._without_rooms(span.is_):
                lib.heap_compare(span.was, span.is_, totals)
            for i, name in enumerate(("allocated", "allocated_bytes", "freed", "freed_bytes")):
                self.totals[i] += getattr(totals, name)
        end = max((c.at[c.count - 1].at + c.at[c.count - 1].size
                   for c in (span.was, span.is_) if c.count), default=anchor)  # fmt: skip
        for page in pages[:HEAP_PAGES_MAX]:
            if page.end > anchor and page.start < end:
                page.ranges = list(self._split(page.ranges, span, area, anchor, end))
        return int(end)

    def _damaged(self, area: HeapArea, span: _Span) -> None:
        """Note the header at which a walk ended, the state before first."""
        states = (
            (span.was, self.before, area.end_before, "before"),
            (span.is_, self.after, area.end_after, "after"),
        )
        for chunks, view, limit, state in states:
            if chunks.broken:
                last = chunks.at[chunks.count - 1] if chunks.count else None
                before = (int(last.at), int(last.size)) if last is not None else None
                found = damage.at_header(view, int(chunks.broken_at), limit, before)
                self._cannot(dataclasses.replace(found, state=state))

    def _before_header(self, area: HeapArea, at: int) -> Optional[Tuple[int, int]]:
        """(start, size) of the chunk in front of the header at `at`, in the state before."""
        index = self.known.indexes[area.start]
        anchor = lib.heap_index_find(index, self.before.native, at - 16, area.end_before)
        return damage.chunk_before(self.before, int(anchor), at)

    @contextlib.contextmanager
    def _without_rooms(self, chunks: Any) -> Iterator[None]:
        """What gdb itself allocated meanwhile counts as free."""
        indexes = [lib.heap_find(chunks, room - 16) for room in self.rooms]
        places = [chunks.at[i] for i in indexes if i >= 0]
        hidden = [c for c in places if c.state == lib.CHUNK_USED and c.at + 16 in self.rooms]
        for chunk in hidden:
            chunk.state = lib.CHUNK_LISTED
        yield
        for chunk in hidden:
            chunk.state = lib.CHUNK_USED

    def _listed(self, view: View, area: HeapArea) -> Any:
        """Chunks that look used and are free, sorted, as a C array."""
        main = self._main_arena()
        arena = area.arena or (main.address if main is not None else 0)
        rows = [malloc.cache_heads(view, cache) for cache in self.caches]
        if arena and main is not None and main.layout.fastbins:
            at = arena + main.layout.fastbins
            rows.append(malloc.Heads(at, layouts.FASTBINS, layouts.LINK_AT, 0))
        elif main is None:
            self._cannot(Damage("no-arena", 0))
        self._arenas.update({arena} - {0})
        found = malloc.listed(view, rows, self.known)
        if view is self.before and self.caches:
            self._cached.update(malloc.listed(view, rows[: len(self.caches)], self.known).chunks)
        if found.link:
            self._cannot(damage.at_link(view, found.entry, found.link, bool(self.known.mangled)))
        return ffi.new("uint64_t[]", sorted(set(found.chunks)))

    def _main_arena(self) -> Optional[MallocState]:
        self.malloc_words()
        main: Optional[MallocState] = self.known.main
        return main

    def own_words(self) -> Set[int]:
        """Addresses of malloc's thread-locals, and what these point to."""
        main = self._main_arena()
        arena = main.address if main is not None else 0
        return {*self.caches, self.known.caches.get(self.fs_base, 0), arena} - {0}

    def malloc_words(self) -> List[Range]:
        """Ranges of malloc's own variables in libraries' data."""
        if self.known.words is None:
            self.known.words = []
            for view, brk in zip((self.before, self.after), self.brk):
                if brk[1] > brk[0] and not self.known.words:
                    self.known.main = layouts.find_main(self.owners.snapshot, view)
                    self.known.words = self.owners.malloc_words(view, brk, self.known.main)
        return self.known.words

    def _split(
        self, runs: List[DirtyRange], span: _Span, area: HeapArea, anchor: int, end: int
    ) -> Iterator[DirtyRange]:
        """`runs` cut where chunks' headers and blocks meet."""
        for run in runs:
            at, stop = run.address, run.address + len(run.before)
            while at < stop:
                if at < anchor or at >= end:
                    upto = min(stop, anchor) if at < anchor else stop
                    # Of another stretch: told there, or told already.
                    role = "malloc" if at < area.start and area.arena else run.role
                else:
                    upto, role = self._part(at, span)
                    upto = min(upto, stop)
                piece = part(run, at, upto, role)
                if piece is not None:
                    yield piece
                at = upto

    def _part(self, at: int, span: _Span) -> Tuple[int, str]:
        """(where the part of the chunk that holds `at` ends, its role)."""
        new, old = _chunk(span.is_, at), _chunk(span.was, at)
        here = new if new is not None else old
        if here is None:
            return at + 1, ""
        start, size, state = here
        if at < start + 8:  # the last bytes of the chunk before, or its footer
            before = _chunk(span.is_ if new is not None else span.was, start - 1)
            mine = before is None or before[2] in (lib.CHUNK_USED, lib.CHUNK_LISTED)
            return start + 8, self._block_at(start - 1, span) if mine else "malloc"
        if at < start + 16:
            return start + 16, "malloc"
        if start + 16 in self.caches:
            return start + size, "malloc"
        links = 0
        if state == lib.CHUNK_LISTED:
            links = 32
        elif state == lib.CHUNK_FREE:
            links = 32 if size < malloc.LARGE else 48
        if at < start + links:
            return start + links, "malloc"
        stop = start + size
        fresh = state == lib.CHUNK_USED and (old is None or old[::2] != (start, state))
        if fresh and at < start + 48:
            left = leftovers.words(
                self.before, self.after, start, at, min(stop, start + 48), start in self._cached,
                self._arenas, self.brk if self.known.mangled else (),
            )  # fmt: skip
            word = next(left, stop)
            if word <= at:
                return word + 8, "malloc"
            stop = word
        if state != lib.CHUNK_USED and old is not None and at < old[0] + old[1] < stop:
            stop = old[0] + old[1]
        return stop, self._block_at(at, span)

    def _block_at(self, at: int, span: _Span) -> str:
        """Note the block that holds `at`; the role of its bytes."""
        new, old = _chunk(span.is_, at), _chunk(span.was, at)
        if new is not None and new[2] == lib.CHUNK_USED:
            same = old is not None and old[2] == lib.CHUNK_USED and old[0] == new[0]
            same = same or new[0] + 16 in self.rooms
            self._note(new, "live" if same else "allocated")
            return ""
        if new is not None and new[2] == lib.CHUNK_UNKNOWN:
            return ""
        if old is not None and old[2] == lib.CHUNK_USED:
            self._note(old, "freed")
        elif new is not None and new[2] == lib.CHUNK_LISTED:
            self._note(new, "gone")
        return "freed"

    def _note(self, chunk: Tuple[int, int, int], state: str) -> None:
        start = chunk[0] + 16
        if start not in self.blocks and len(self.blocks) < BLOCKS_MAX:
            self.blocks[start] = Block(start, chunk[1] - 8, state)

    # -- blocks with a mapping of their own ---------------------------------------------------

    def _mapped_block(self, page: DirtyPage) -> None:
        """An anonymous page may lie in a block that is too large for a heap."""
        last = self._last
        if last is not None and last.start - 16 <= page.start < last.start + last.size:
            self._mapped_runs(page, last.start)
            return
        low, high = self.owners.range_of(page.start, [*self.born, *self.early])
        new = self._mapped[1].find(page.start, low, high)
        old = None
        if not any(s <= page.start < e for s, e in self.born):
            old = self._mapped[0].find(page.start, low, high)
        found = new or old
        if found is None:
            return
        same = new is not None and old is not None and new[0] == old[0]
        same = same or (new is not None and new[0] + 16 in self.rooms)
        state = "live" if same else "allocated" if new else "freed"
        start, size = found[0] + 16, found[1] - 16
        self._last = self.blocks[start] = Block(start, size, state)
        if state != "live":
            self._count(state, size)
        elif new is not None and old is not None and new[1] != old[1]:
            self.totals[1 if new[1] > old[1] else 3] += abs(new[1] - old[1])
        self._mapped_runs(page, start)

    def _count(self, state: str, size: int) -> None:
        place = 0 if state == "allocated" else 2
        self.totals[place] += 1
        self.totals[place + 1] += size

    @staticmethod
    def _mapped_runs(page: DirtyPage, start: int) -> None:
        runs = []
        for run in page.ranges:
            middle = min(max(start, run.address), run.address + len(run.before))
            pieces = (part(run, run.address, middle, "malloc"),
                      part(run, middle, run.address + len(run.before), ""))  # fmt: skip
            runs += [piece for piece in pieces if piece is not None]
        page.ranges = runs


def _clusters(pages: List[DirtyPage]) -> Iterator[Range]:
    """Stretches of the pages (sorted) that lie near each other."""
    start = end = 0
    for page in pages:
        if end and page.start - end > GAP_PAGES * PAGE_SIZE:
            yield start, end
            start = 0
        start = start or page.start
        end = page.end
    if end:
        yield start, end


def _chunk(chunks: Any, at: int) -> Optional[Tuple[int, int, int]]:
    index = lib.heap_find(chunks, at)
    if index < 0:
        return None
    chunk = chunks.at[index]
    return chunk.at, chunk.size, chunk.state
