"""Changes in the making: what can be told from bytes at once, and what needs memory as it was."""

from __future__ import annotations

from dataclasses import field
from typing import Iterable, Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.names import printers, scalars, type_facts
from gdb_uffd.client.names.printers import Difference, ShownContainer
from gdb_uffd.client.names.scalars import ScalarPart, Walk
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.show.report_text import INNER, REST, NamedChange
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE

ELEMENTS_OF_TEXT = 8
"""Characters told one by one where a changed text looks alike at its beginning."""


@dataclass(frozen=True)
class ChangeSetting:
    """Where a change lies, for all that a walk finds there."""

    page: int
    kind: str
    role: str = ""
    thread: Optional[int] = None
    frame: Optional[Tuple[int, str]] = None


@dataclass
class PendingChange:
    """A change; `leaf` is set while its texts still have to be read from memory."""

    where: ChangeSetting
    name: str
    type: str
    address: int
    size: int
    before: str = ""
    after: str = ""
    raw: bool = False
    other: bool = False
    note: str = ""
    leaf: Optional[ScalarPart] = None
    bytes: Tuple[bytes, bytes] = (b"", b"")
    shown: List[ShownContainer] = field(default_factory=list)  # before and after; see settle()

    def named(self) -> NamedChange:
        """The finished change."""
        w = self.where
        return NamedChange(
            self.name, self.type, self.before, self.after, self.size, self.address, w.kind,
            w.role, w.thread, w.frame, self.raw, self.other, self.note,
        )  # fmt: skip


def of_bytes(
    where: ChangeSetting, name: str, address: int, before: bytes, after: bytes, note: str = ""
) -> PendingChange:
    """Bytes for which there is no type."""
    texts = scalars.hex_text(before), scalars.hex_text(after)
    return PendingChange(where, name, "", address, len(before), *texts, raw=True, note=note)


def of_leaf(
    where: ChangeSetting, leaf: ScalarPart, walk: Walk, key: Tuple[object, ...]
) -> Iterator[PendingChange]:
    """The change of one leaf; nothing where its bytes are alike or cannot be had."""
    about = type_facts.info(leaf.type)
    name, type_ = leaf.place.text, about.name
    large = leaf.size > scalars.MAX_VALUE_BYTES and not leaf.printer
    text = about.element is not None and type_facts.is_text(about.element)
    if leaf.padding or (large and not text):
        yield from _part(where, leaf, walk)
        return
    if large and about.element is not None:
        yield from _characters(where, leaf, about.element, walk, key)
        return
    old, new = walk.bytes_of(leaf, False), walk.bytes_of(leaf, True)
    if old is None or new is None or old == new:
        return
    made = PendingChange(where, name, type_, leaf.address, leaf.size, other=leaf.union)
    made.bytes = old, new
    if leaf.printer or scalars.needs_memory(about):
        made.leaf = leaf
        yield made
        return
    try:
        made.before = scalars.text_of_bytes(leaf, old, key)
        made.after = scalars.text_of_bytes(leaf, new, key)
    except (*FAILURES, TypeError):
        pass  # a type gdb cannot print from bytes
    if made.before != made.after:
        yield made
    elif text and about.element is not None:
        yield from _characters(where, leaf, about.element, walk, key)
    else:
        yield from _part(where, leaf, walk)


def _characters(
    where: ChangeSetting, leaf: ScalarPart, element: gdb.Type, walk: Walk, key: Tuple[object, ...]
) -> Iterator[PendingChange]:
    """A text that is cut off before the first difference: its characters."""
    inside = [a for a in walk.changed if leaf.address <= a < leaf.address + leaf.size]
    for at in inside[:ELEMENTS_OF_TEXT]:
        place = leaf.place.element(at - leaf.address)
        yield from of_leaf(where, ScalarPart(place, element, at, 1, union=leaf.union), walk, key)
    for at in inside[ELEMENTS_OF_TEXT : ELEMENTS_OF_TEXT + 1]:
        yield from of_rest(where, leaf.place.text, leaf.address, at, walk, inside[-1] + 1)


def _part(where: ChangeSetting, leaf: ScalarPart, walk: Walk) -> Iterator[PendingChange]:
    """The changed bytes of a leaf that is not shown as a value."""
    inside = [a for a in walk.changed if leaf.address <= a < leaf.address + leaf.size]
    if not inside:
        return
    size = inside[-1] + 1 - inside[0]
    old, new = (walk.read(inside[0], size, after) for after in (False, True))
    if old is not None and new is not None:
        offset = inside[0] - leaf.address
        name = f"{leaf.place.text}+{offset:#x}" if offset else leaf.place.text
        note = "padding" if leaf.padding else ""
        yield of_bytes(where, name, inside[0], old, new, note)


def of_rest(
    where: ChangeSetting, name: str, start: int, begin: int, walk: Walk, end: int = 1 << 64
) -> Iterator[PendingChange]:
    """What changed of the object `name` at `start` from `begin` on, as bytes, up to the page's end:
    there are too many to be told one by one."""
    end = min(end, where.page + PAGE_SIZE)
    inside = [a for a in walk.changed if begin <= a < end]
    if not inside:
        return
    size = inside[-1] + 1 - inside[0]
    old, new = (walk.read(inside[0], size, after) for after in (False, True))
    if old is not None and new is not None:
        yield of_bytes(where, f"{name}+{inside[0] - start:#x}", inside[0], old, new, REST)


def fill(changes: Iterable[PendingChange], after: bool) -> None:
    """What the changes that need memory show; it is as it was then (`after`: as it became)."""
    for change in changes:
        if change.leaf is None:
            continue
        state: Optional[ShownContainer] = None
        if change.leaf.printer:
            state = printers.state(change.leaf.type, change.leaf.address)
        if state is None:
            state = ShownContainer(scalars.text_in_memory(change.leaf), (), False, True)
        change.shown.append(state)


def settle(change: PendingChange) -> Iterator[PendingChange]:
    """The changes that a change comes to which needed memory.  Of a container: its own words
    ("std::map with 3 elements") where these differ, and the elements that lie inside of it."""
    if change.leaf is None or len(change.shown) != 2:
        yield change
        return
    old, new = change.shown
    told = False
    if old.head != new.head and old.head and new.head:
        change.before, change.after = old.head, new.head
        told = True
        yield change
    if old.children or new.children:
        low, high = change.address, change.address + change.size
        inline = not type_facts.leads_elsewhere(change.leaf.type)
        for difference in printers.differences(old, new):
            child = difference.after or difference.before
            at = None if child is None else child.address
            # Without an address it is a value that the printer made up of the object's bits.
            if inline if at is None else low <= at < high:
                told = True
                yield of_child(change.where, change.name, difference)
    if not told:
        change.before, change.after = (scalars.hex_text(data) for data in change.bytes)
        change.raw = True
        change.note = INNER if change.leaf.printer else ""
        yield change


def of_child(
    where: ChangeSetting, name: str, difference: Difference, address: int = 0
) -> PendingChange:
    """An element of the container `name`; `address` where it has none of its own."""
    child = difference.after or difference.before
    assert child is not None
    both = (difference.before, difference.after)
    old, new = (c.text if c is not None else "" for c in both)
    at = child.address if child.address is not None else address
    return PendingChange(where, f"{name}{child.label}", child.type, at, child.size, old, new)
