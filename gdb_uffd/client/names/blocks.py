"""Changed bytes in blocks of the heap: by the path that leads there, the type and its members."""

from __future__ import annotations

import bisect
import contextlib
from dataclasses import field
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.names import pending, printers, search_roots, type_facts
from gdb_uffd.client.names.block_parts import offset_to_top, reaches, tail
from gdb_uffd.client.names.block_paths import FoundBlock, Paths, Root, element_of
from gdb_uffd.client.names.budget import Budget
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.page_images import Images
from gdb_uffd.client.names.pending import ChangeSetting, PendingChange
from gdb_uffd.client.names.printers import Difference
from gdb_uffd.client.names.shapes import NEVER, Shapes
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.state import Context
from gdb_uffd.client.session.view import memory
from gdb_uffd.client.show.report_text import INNER, NEW
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import Block, CallReport, DirtyPage, DirtyRange

TEXT_BYTES = 256
"""Bytes of a text in a block that are shown."""

CHARACTERS = 8
"""Bytes of a buffer that are told one by one."""

MAX_MAPPINGS = 64
"""Anonymous mappings that are looked for, too."""

MAX_WANTED = 2048
"""Blocks whose names are looked for."""

_OBJECTS = type_facts.STRUCTS
"""What is certain to be the whole block when its size fits."""

WalkObject = Callable[[Expression, gdb.Type, int, List[int], ChangeSetting], List[PendingChange]]
"""Names the changed members of an object (naming.Naming)."""


@dataclass
class _Job:
    """Changed bytes of one block, on one page."""

    run: DirtyRange
    where: ChangeSetting
    block: Block
    found: Optional[FoundBlock] = None
    otherwise: Optional[PendingChange] = (
        None  # of a mapping, not a block: how it is told without a path
    )


@dataclass
class _Holder:
    """A container and the changed bytes in blocks that it keeps for itself."""

    root: Root
    jobs: List[_Job] = field(default_factory=list)


class Blocks:
    """The blocks of one report.  `roots`: variables that the report names, to begin from."""

    def __init__(
        self,
        session: Session,
        report: CallReport,
        which_all: bool,
        context: Context,
        images: Images,
        budget: Budget,
    ) -> None:
        self.roots: List[Root] = []
        self._session = session
        self._report = report
        self._all = which_all
        self._context = context
        self._images = images
        self._budget = budget
        self._starts = [block.start for block in report.blocks]
        self._jobs: List[_Job] = []
        self._mappings: Dict[int, int] = {}  # end of what was written of a mapping, by its start

    @property
    def taken(self) -> int:
        """Stretches of bytes that are told at the end."""
        return len(self._jobs)

    def take(self, run: DirtyRange, where: ChangeSetting) -> bool:
        """Whether the run lies in a block, and is named from here on."""
        index = bisect.bisect_right(self._starts, run.address) - 1
        if index < 0:
            return False
        block = self._report.blocks[index]
        if run.address >= block.start + block.size or block.state == "gone":
            return False
        self._jobs.append(_Job(run, where, block))
        return True

    def take_mapping(self, page: DirtyPage, run: DirtyRange, otherwise: PendingChange) -> bool:
        """Whether the run, in no block, may be named by a pointer into its mapping."""
        start = page.mapping_start
        if not start or (start not in self._mappings and len(self._mappings) >= MAX_MAPPINGS):
            return False
        end = max(page.end, self._mappings.get(start, 0))
        self._mappings[start] = end
        block = Block(start, end - start, "live")
        self._jobs.append(_Job(run, otherwise.where, block, otherwise=otherwise))
        return True

    def changes(self, walk: WalkObject) -> Iterator[PendingChange]:
        """The changes in all blocks that were taken."""
        for change in self._all_changes(walk) if self._jobs else ():
            if not change.raw:
                self.mark_new(change)
            yield change

    def mark_new(self, change: PendingChange) -> None:
        """Say so where the bytes before mean nothing: the call allocated them."""
        if self._is_new(change.address) and not change.note:
            change.note = NEW

    def _is_new(self, address: int) -> bool:
        index = bisect.bisect_right(self._starts, address) - 1
        block = self._report.blocks[index] if index >= 0 else None
        inside = block is not None and address < block.start + block.size
        return inside and block is not None and block.state == "allocated"

    def _all_changes(self, walk: WalkObject) -> Iterator[PendingChange]:
        found = self._search()
        holders: Dict[Tuple[int, str], _Holder] = {}
        for job in self._jobs:
            job.found = found.get(job.block.start)
            if job.found is None:
                yield self._unnamed(job)
            elif job.found.holder is not None:
                root = job.found.holder
                key = (root.address, root.place.text)
                holders.setdefault(key, _Holder(root)).jobs.append(job)
            else:
                yield from self._named(job, job.found, walk)
        if holders:
            yield from self._held(list(holders.values()), walk)

    # -- looking for them ---------------------------------------------------------------------

    def _search(self) -> Dict[int, FoundBlock]:
        """What is found of the blocks, nearest beginnings first; each costs a packet."""
        blocks = {job.block.start: job.block for job in self._jobs}
        wanted = list(blocks.values())[:MAX_WANTED]
        paths = Paths(self._session, self._all, self._session.kept(Shapes))
        paths.found.update(self._at_once(wanted))
        if len(paths.found) == len(wanted):
            return paths.found
        for roots in self._beginnings():
            if self._budget.spent():
                break
            for after in (True, False):
                ask = [b for b in wanted if (b.state != "freed") is after or b.state == "live"]
                paths.search(roots, ask, after)
            if all(b.start in paths.found for b in wanted):
                break
        return paths.found

    def _at_once(self, blocks: List[Block]) -> Dict[int, FoundBlock]:
        """Blocks that a pointer the call set leads to, and that its type fits: without a search."""
        found: Dict[int, FoundBlock] = {}
        by_start = {b.start: b for b in blocks if b.state != "freed"}
        for root in self.roots:
            about = type_facts.info(root.type)
            raw = None
            if about.code == gdb.TYPE_CODE_PTR:
                raw = self._images.read(root.address, 8, True)
            block = by_start.get(int.from_bytes(raw or b"", "little"))
            if block is None or block.start in found:
                continue
            target = about.plain.target()
            size = target.sizeof if target.strip_typedefs().code in _OBJECTS else 0
            if 0 < size <= block.size <= max(24, (size + 23 & ~15) - 8):
                place = root.place.target()
                found[block.start] = FoundBlock(block, place, target, block.start, NEVER)
        return found

    def _beginnings(self) -> Iterator[List[Root]]:
        shapes = self._session.kept(Shapes)
        yield [*self.roots, *search_roots.of_call(self._context, shapes)]
        pcs = dict.fromkeys(
            pc
            for page in self._report.pages
            if page.first_write is not None
            for pc in page.first_write.pcs
        )
        if not pcs and self._session.calls.last:  # an engine that does not tell
            pcs[self._session.calls.last] = None
        files = list(search_roots.of_files(list(pcs)[:64]))
        yield files
        frames = list(search_roots.of_frames())
        yield frames
        # What lies in a container's nodes, whose types only its printer knows.
        live = self._report.kept
        with memory(self._session, True, self._all, live):
            inner = list(search_roots.in_containers([*self.roots, *files, *frames]))
        yield inner

    # -- naming them --------------------------------------------------------------------------

    def _unnamed(self, job: _Job) -> PendingChange:
        """Nothing leads there: by the block, or the mapping."""
        if job.otherwise is not None:
            return job.otherwise
        offset = job.run.address - job.block.start
        name = f"block {job.block.start:#x}+{offset:#x}"
        note = f"{job.block.size} B, {job.block.state}"
        run = job.run
        return pending.of_bytes(job.where, name, run.address, run.before, run.after, note)

    def _named(self, job: _Job, found: FoundBlock, walk: WalkObject) -> Iterator[PendingChange]:
        if found.type is None and job.otherwise is None:
            yield self._beyond(job, found, job.run.changed())
            return
        if found.type is None or (job.otherwise is not None and not reaches(found, job.run)):
            yield self._unnamed(job)
            return
        self._see_class(found)
        about = type_facts.info(found.type)
        changed = job.run.changed()
        most = found.most
        inside: Dict[int, List[int]] = {}
        outside: List[int] = []
        for address in changed:
            offset = address - found.address
            index = offset // about.size if about.size else 0
            if about.size and 0 <= index < most:
                inside.setdefault(index, []).append(address)
            else:
                outside.append(address)
        if inside and type_facts.is_text(found.type):
            yield from self._text(job, found, changed, walk)
            return
        for index, addresses in inside.items():
            place = element_of(found.place, index, found.vector)
            at = found.address + index * about.size
            yield from walk(place, found.type, at, addresses, job.where)
        if outside and found.smart and outside[-1] < found.address:
            yield from self._inner([job], found.smart, [(found.address, 1 << 64)])
        elif outside and found.address != job.block.start and not inside:
            yield self._unnamed(job)
        elif outside:
            open_end = tail(found, about, outside)
            if open_end is not None:
                yield from walk(*open_end, outside, job.where)
            else:
                yield self._beyond(job, found, outside)

    def _see_class(self, found: FoundBlock) -> None:
        """The class that the object really is of, where its own table tells."""
        type_ = found.type
        if type_ is None or found.vector or not found.place.pointer:
            return
        known = self._session.kept(Shapes).all
        if not any(shape.polymorphic for shape in known if shape.type == type_):
            return
        shown = memory(self._session, found.after, self._all, self._report.kept)
        with shown, contextlib.suppress(*FAILURES):
            pointer = gdb.Value(found.address).cast(type_.pointer())
            real = pointer.dynamic_type.target()
            if real == type_ or real.sizeof < type_.sizeof:
                return
            base = found.place.text if found.place.closed else f"({found.place.text})"
            # gdb 13's dynamic_cast goes astray from a second base class; its plain cast does not.
            found.place = Expression(f"({type_facts.bare_name(real)} *) {base}", True, False)
            found.address += offset_to_top(found.address)
            found.type, found.spreads = real, NEVER

    def _beyond(self, job: _Job, found: FoundBlock, changed: List[int]) -> PendingChange:
        """Bytes that the pointer's type does not tell of: by their distance from it."""
        run = job.run
        first = changed[0] - run.address
        last = changed[-1] + 1 - run.address
        offset = changed[0] - found.address
        name = f"{found.place.text}{offset:+#x}" if offset else found.place.text
        note = f"in a block of {job.block.size} B"
        return pending.of_bytes(
            job.where, name, changed[0], run.before[first:last], run.after[first:last], note
        )

    def _text(
        self, job: _Job, found: FoundBlock, changed: List[int], walk: WalkObject
    ) -> Iterator[PendingChange]:
        """A block of characters: as one text, up to its end."""
        assert found.type is not None
        offset = changed[0] - found.address
        if b"\0" in (self._images.read(found.address, min(offset, TEXT_BYTES), True) or b""):
            for at in changed[:CHARACTERS]:  # no text: it would end earlier
                place = element_of(found.place, at - found.address, found.vector)
                yield from walk(place, found.type, at, [at], job.where)
            return
        start = found.address if offset < TEXT_BYTES else changed[0]
        room = min(job.block.start + job.block.size - start, TEXT_BYTES)
        after = self._images.read(start, room, True) or b""
        end = after.find(b"\0", max(0, changed[-1] - start))
        if job.block.state == "allocated" and not after[after.find(b"\0") :].strip(b"\0"):
            end = after.find(b"\0")  # zeros behind it are what malloc left there
        length = end + 1 if end >= 0 else room
        if length <= 0:
            return
        base = found.place.text if found.place.closed else f"({found.place.text})"
        if start == found.address:
            name = f"*{base}@{length}" if found.place.pointer else f"{base}@{length}"
        else:
            name = f"{base}[{start - found.address}]@{length}"
        type_ = found.type.array(length - 1)
        yield from walk(Expression(name, closed=False), type_, start, changed, job.where)

    # -- containers ---------------------------------------------------------------------------

    def _held(self, holders: List[_Holder], walk: WalkObject) -> Iterator[PendingChange]:
        states: List[List[Optional[printers.ShownContainer]]] = [[] for _ in holders]
        for after in (False, True):
            shown = memory(self._session, after, self._all, self._report.kept)
            with shown, printers.language(holder.root.type for holder in holders):
                for holder, seen in zip(holders, states):
                    seen.append(printers.state(holder.root.type, holder.root.address))
        for holder, (before, after_) in zip(holders, states):
            states_ = {job.block.state for job in holder.jobs}
            if (before is None) != (after_ is None) and states_ & {"allocated", "freed"}:
                # It was not there yet, or is no more: the variable itself is told elsewhere.
                yield from self._inner(holder.jobs, holder.root.place.text, [])
            elif before is None or after_ is None:  # its printer fails: by its own pointers
                for job in holder.jobs:
                    if job.found is not None:
                        yield from self._named(job, job.found, walk)
            elif not before.children and not after_.children:
                yield from self._whole(holder, before.head, after_.head)
            else:
                yield from self._children(holder, printers.differences(before, after_))

    @staticmethod
    def _whole(holder: _Holder, before: str, after: str) -> Iterator[PendingChange]:
        """A container that shows no elements, a string: all of it."""
        where, root = holder.jobs[0].where, holder.root
        if before == after:
            for job in holder.jobs:
                run = job.run
                name = root.place.text
                yield pending.of_bytes(
                    job.where, name, run.address, run.before, run.after, "unused"
                )
            return
        run = holder.jobs[0].run
        size = len(run.before)
        yield PendingChange(
            where, root.place.text, str(root.type), run.address, size, before, after
        )

    def _children(self, holder: _Holder, differences: List[Difference]) -> Iterator[PendingChange]:
        pages = {job.where.page: job.where for job in holder.jobs}
        covered: List[Tuple[int, int]] = []
        name = holder.root.place.text
        for difference in differences:
            child = difference.after or difference.before
            at = child.address if child is not None else None
            first = holder.jobs[0]
            where = first.where if at is None else pages.get(at & -4096, first.where)
            if at is not None and child is not None:
                covered.append((at, at + child.size))
            yield pending.of_child(where, name, difference, first.run.address)
        if covered or not differences:  # else the elements are bits of what changed
            yield from self._inner(holder.jobs, name, covered)

    @staticmethod
    def _inner(
        jobs: List[_Job], name: str, covered: List[Tuple[int, int]]
    ) -> Iterator[PendingChange]:
        """Changed bytes that are no element's."""
        for job in jobs:
            rest = [a for a in job.run.changed() if not any(s <= a < e for s, e in covered)]
            if rest:
                low, high = rest[0] - job.run.address, rest[-1] + 1 - job.run.address
                before, after = job.run.before[low:high], job.run.after[low:high]
                yield pending.of_bytes(job.where, name, rest[0], before, after, INNER)
