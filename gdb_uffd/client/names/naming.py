"""Every changed byte of a report by its name, with its value before and after."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from typing import ContextManager, Dict, Iterator, List, Optional, Set, Tuple

import gdb

from gdb_uffd.client.names import addresses, frame_locals, pending, printers, scalars, type_facts
from gdb_uffd.client.names.block_paths import Root
from gdb_uffd.client.names.blocks import Blocks
from gdb_uffd.client.names.budget import SECONDS, Budget
from gdb_uffd.client.names.expression import Expression, variable
from gdb_uffd.client.names.page_images import Images
from gdb_uffd.client.names.pending import ChangeSetting, PendingChange
from gdb_uffd.client.names.scalars import ScalarPart, Walk
from gdb_uffd.client.names.shapes import VECTOR
from gdb_uffd.client.names.tls import ThreadLocals
from gdb_uffd.client.names.variables import Variable
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.state import Context
from gdb_uffd.client.session.threads import in_thread
from gdb_uffd.client.session.view import memory
from gdb_uffd.client.show.report_text import NEW, REST, NamedChange
from gdb_uffd.protocol.model import TELLING, CallReport, DirtyPage, DirtyRange, FirstWrite

MAX_TOLD = 4000
"""Named changes of one report; each costs some ten microseconds."""

_NEXT_MAX = 256  # looks for where bytes without a name end

OUT_OF_TIME = (
    f"the names took longer than {SECONDS:g} s: some are only addresses; what is known by now is "
    "remembered, so the next `uffd dirty` or call tells more"
)
"""Said once a report."""

OUT_OF_ROOM = f"only {MAX_TOLD:,} changes are named: the rest is only counted"
"""Said once a report."""


class Naming:
    """Names for one report; `which_all` as in quffd.image."""

    def __init__(
        self, session: Session, report: CallReport, which_all: bool, context: Context
    ) -> None:
        self._session = session
        self._report = report
        self._all = which_all
        self._pages = [p for p in report.pages if p.meant and p.bytes_changed]
        self._images = self.images(session, report, which_all)
        self._budget = Budget()
        self._blocks = Blocks(session, report, which_all, context, self._images, self._budget)
        self._tls = ThreadLocals(session)
        self._key = scalars.settings()
        self._told: Set[Tuple[int, str]] = set()
        self._count = 0
        self._added: List[Tuple[int, int]] = []  # where vectors got elements, in room they had
        self._done_until = 0  # of the page at hand: behind the last variable that was walked

    def images(self, session: Session, report: CallReport, which_all: bool) -> Images:
        """Where the bytes before and after come from."""
        return Images(session, report.pages, which_all)

    def changes(self) -> Dict[int, List[NamedChange]]:
        """The changes by the start of the page that holds them, by address."""
        changes: Dict[int, List[PendingChange]] = {}
        for page in self._pages:
            changes[page.start] = []
            if self._count + self._blocks.taken >= MAX_TOLD:
                self._say(OUT_OF_ROOM)
                continue
            # Symbols of a damaged file: the bytes are still told.
            with contextlib.suppress(*FAILURES):
                changes[page.start] = list(self._page(page))
            self._count += len(changes[page.start])
        for change in self._blocks.changes(self._walk):
            changes.setdefault(change.where.page, []).append(change)
        self.look([d for found in changes.values() for d in found])
        if self._budget.overdrawn:
            self._say(OUT_OF_TIME)
        for change in (d for found in changes.values() for d in found) if self._added else ():
            inside = any(low <= change.address < high for low, high in self._added)
            if inside and not change.note and not change.raw:
                change.note = NEW
        return {start: self._finished(found) for start, found in changes.items()}

    def _say(self, note: str) -> None:
        if note not in self._report.notes:
            self._report.notes.append(note)

    @staticmethod
    def _finished(changes: List[PendingChange]) -> List[NamedChange]:
        settled = [done for change in changes for done in pending.settle(change)]
        return [change.named() for change in sorted(settled, key=lambda d: d.address)]

    def look(self, changes: List[PendingChange]) -> None:
        """Read what is missing, in the memory before and in that after."""
        waiting = [change for change in changes if change.leaf is not None]
        if not waiting:
            return
        for after in (False, True):
            with (
                self.state(after),
                printers.language(d.leaf.type for d in waiting if d.leaf is not None),
            ):
                pending.fill(waiting, after)

    def state(self, after: bool) -> ContextManager[None]:
        """gdb is shown the memory before or after."""
        return memory(self._session, after, self._all, self._report.kept)

    def first(self, page: DirtyPage) -> Optional[FirstWrite]:
        """Who wrote the page first, or where an engine does not tell, who may have."""
        if page.first_write is not None or self._report.engine in ("", *TELLING):
            return page.first_write
        return addresses.likely(self._session.calls.last)

    def pcs(self, page: DirtyPage) -> List[int]:
        """Instructions that tell which source files matter for a page: of its first write, but
        that may be the linker's; of the function that was called."""
        first = self.first(page)
        pcs = list(first.pcs) if first is not None else []
        called = self._session.calls.last
        return [*pcs, called] if called else pcs

    # -- one page -----------------------------------------------------------------------------

    def _page(self, page: DirtyPage) -> Iterator[PendingChange]:
        self._done_until = 0
        if page.kind == "stack" and page.bytes_above:
            yield from self._stack(page, page.thread, page.ranges)
            return
        for run in page.ranges:
            kind = run.kind or page.kind
            if run.role == "scratch" or kind == "stack":
                continue
            where = ChangeSetting(page.start, kind, run.role, run.thread or page.thread)
            if kind == "data":
                yield from self._data(page, run, where)
            elif kind == "tls":
                yield from self._thread_local(page, run, where)
            elif run.role == "malloc" or not self._blocks.take(run, where):
                change = self._unnamed(page, run, where)
                if run.role or not self._blocks.take_mapping(page, run, change):
                    yield change
        if page.more_ranges and page.ranges and page.kind != "stack":
            yield self._left_out(page)
        live = [run for run in page.ranges if run.kind == "stack" and run.role != "scratch"]
        if live:
            yield from self._stack(page, live[0].thread, live)

    def _left_out(self, page: DirtyPage) -> PendingChange:
        """What changed on the page and the report does not list."""
        last = page.ranges[-1]
        end = last.address + len(last.before)
        count = page.bytes_changed - sum(len(run.changed()) for run in page.ranges)
        base = page.mapping_start or page.start
        name = f"{os.path.basename(page.mapping) or page.mapping}+{end - base:#x}"
        where = ChangeSetting(page.start, page.kind, "", page.thread)
        return PendingChange(where, name, "", end, max(0, count), raw=True, note=REST)

    def _unnamed(self, page: DirtyPage, run: DirtyRange, where: ChangeSetting) -> PendingChange:
        base = page.mapping_start or page.start
        name = f"{os.path.basename(page.mapping) or page.mapping}+{run.address - base:#x}"
        return pending.of_bytes(where, name, run.address, run.before, run.after)

    def _walk(
        self,
        place: Expression,
        type_: gdb.Type,
        address: int,
        changed: List[int],
        where: ChangeSetting,
    ) -> List[PendingChange]:
        """The changed leaves of an object; each is told once, on the first page it lies on."""
        found: List[PendingChange] = []
        walk = Walk(changed, self._images.read)
        for leaf in walk.leaves(place, type_, address):
            if len(found) >= scalars.MAX_CHANGES:
                found += pending.of_rest(where, place.object().text, address, leaf.address, walk)
                break
            self._note_added(leaf, walk)
            # A large text is told page by page.
            page = where.page if leaf.size > scalars.MAX_VALUE_BYTES else 0
            if (leaf.address + page, leaf.place.text) not in self._told:
                self._told.add((leaf.address + page, leaf.place.text))
                found += pending.of_leaf(where, leaf, walk, self._key)
        return _unions(found)

    def _note_added(self, leaf: ScalarPart, walk: Walk) -> None:
        """Where a vector grew without moving: what was there before means nothing."""
        name = type_facts.bare_name(leaf.type) if leaf.printer and leaf.size == 24 else ""
        if not VECTOR.match(name):
            return
        old, new = walk.bytes_of(leaf, False), walk.bytes_of(leaf, True)
        if old is not None and new is not None:
            (start, end, room), (now, after, _) = (
                struct.unpack("<3Q", each) for each in (old, new)
            )
            if start == now and end < after <= room:
                self._added.append((end, after))

    def _data(
        self, page: DirtyPage, run: DirtyRange, where: ChangeSetting
    ) -> Iterator[PendingChange]:
        count = 0
        pcs = self.pcs(page)
        for address in run.changed():
            if address < self._done_until or count >= scalars.MAX_CHANGES:
                continue
            known = addresses.variable(address, pcs, self._budget.spent())
            if known is None or known.type is None:
                cut = self._next_known(run, address, pcs)
                low, high = address - run.address, cut - run.address
                name = known.at(address) if known is not None else ""
                made = self._unnamed(page, run, where)
                yield pending.of_bytes(
                    where, name or made.name, address, run.before[low:high], run.after[low:high]
                )
                self._done_until, count = cut, count + 1
                continue
            found = self._variable(known, changed_on(page, known), where)
            count += len(found)
            self._done_until = known.address + known.size
            yield from found

    def _next_known(self, run: DirtyRange, address: int, pcs: List[int]) -> int:
        """Where bytes without a name end: at the next changed variable, or with the run."""
        words = {at & -4: at for at in run.changed() if at & -4 > address}  # one look each
        for at in itertools.islice(words.values(), _NEXT_MAX):
            known = addresses.variable(at, pcs, self._budget.spent())
            if known is not None and known.type is not None:
                return max(known.address, address + 1)
        return run.address + len(run.before)

    def _variable(
        self, known: Variable, changed: List[int], where: ChangeSetting
    ) -> List[PendingChange]:
        assert known.type is not None
        if (
            addresses.MALLOC.match(known.name)
            and not where.role
            and "libc" in where_is(known.address)
        ):
            where = ChangeSetting(where.page, where.kind, "malloc", where.thread)
        if not where.role:
            self._blocks.roots.append(Root(variable(known.name), known.type, known.address))
        return self._walk(variable(known.name), known.type, known.address, changed, where)

    def _thread_local(
        self, page: DirtyPage, run: DirtyRange, where: ChangeSetting
    ) -> Iterator[PendingChange]:
        known = self._tls.find(run, where.thread, self.first(page))
        if known is None:
            found = [self._unnamed(page, run, where)]
        elif known.type is None:
            name = known.at(run.address)
            found = [pending.of_bytes(where, name, run.address, run.before, run.after)]
        else:
            found = self._variable(known, run.changed(), where)
        for change in found:  # of a library's, a block that the thread had no use for until now
            self._blocks.mark_new(change)
            yield change

    def _stack(
        self, page: DirtyPage, thread: Optional[int], runs: List[DirtyRange]
    ) -> Iterator[PendingChange]:
        """Locals of live frames, else bytes of the stack."""
        changed = [a for run in runs for a in run.changed()]
        with in_thread(thread), memory(self._session, False, self._all, self._report.kept):
            if self._report.kept:
                gdb.invalidate_cached_frames()
            known = frame_locals.locals_at(changed)
        if self._report.kept:
            gdb.invalidate_cached_frames()
        for local in known:
            where = ChangeSetting(page.start, "stack", "", thread, (local.level, local.function))
            inside = [a for a in changed if local.holds(a)]
            if local.type is not None:
                self._blocks.roots.append(Root(variable(local.name), local.type, local.address))
                yield from self._walk(
                    variable(local.name), local.type, local.address, inside, where
                )
            else:
                old, new = (self._images.read(local.address, 8, after) for after in (False, True))
                if old is not None and new is not None:
                    was, is_ = (hex(int.from_bytes(data, "little")) for data in (old, new))
                    yield PendingChange(where, local.name, "", local.address, 8, was, is_)
        where = ChangeSetting(page.start, "stack", "", thread)
        for run in runs:
            if not any(local.holds(a) for a in run.changed() for local in known):
                yield self._unnamed(page, run, where)


def changed_on(page: DirtyPage, known: Variable) -> List[int]:
    """The changed addresses of a variable that the report lists on a page, ascending."""
    return [a for run in page.ranges for a in run.changed() if known.holds(a)]


def where_is(address: int) -> str:
    """The base name of the object file that holds `address`."""
    return os.path.basename(gdb.solib_name(address) or "")


def _unions(changes: List[PendingChange]) -> List[PendingChange]:
    """Of the members of a union that share bytes, the one that fits the change best is told first,
    and only the others are marked as such."""
    seen: Set[int] = set()
    for change in sorted(changes, key=lambda d: d.size):
        if change.other:
            bytes_ = set(range(change.address, change.address + min(change.size, 64)))
            if not bytes_ & seen:
                change.other = False
            seen |= bytes_
    return changes
