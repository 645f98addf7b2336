"""The changed scalars of an object: their names, and their values before and after."""

from __future__ import annotations

import bisect
import contextlib
import re
from typing import Callable, FrozenSet, Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.names import type_facts
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.type_facts import MemberField, TypeInfo
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.dataclass import dataclass

MAX_CHANGES = 64
"""Named changes told of one page; a changed array of a thousand elements is told by 64."""

MAX_DEPTH = 12
"""Nesting of members that is followed; types come from files and may be nonsense."""

MAX_TEXT = 160
"""Characters of a value; a union or a vector may print long."""

MAX_VALUE_BYTES = 4096
"""Larger scalars, which are text buffers, are told as bytes."""

MAX_HEX_BYTES = 16
"""Bytes that are shown where there is no type for them."""

MAX_TEXTS = 2000
"""Values of one type whose text is remembered."""

_ARRAY = re.compile(r"^std::(__\w+::)?array<")
"""Its elements are reached without the member that holds them: `a[2]`."""

ReadBytes = Callable[[int, int, bool], Optional[bytes]]
"""(address, size, after?) -> the bytes in that state, None where they cannot be had."""


@dataclass(frozen=True)
class ScalarPart:
    """A scalar (or what is told whole) inside an object."""

    place: Expression
    type: gdb.Type
    address: int
    size: int
    bits: int = 0  # of a bit field, which begins at bit `shift` of its bytes
    shift: int = 0
    union: bool = False  # other members share its bytes
    printer: bool = False  # a pretty printer shows it
    padding: bool = False  # bytes of `type` that no member holds


@dataclass
class Walk:
    """The changed leaves of one object.  `changed`: addresses of changed bytes, ascending;
    `printers`: what a pretty printer shows is a leaf."""

    changed: List[int]
    read: ReadBytes
    printers: bool = True

    def leaves(self, place: Expression, type_: gdb.Type, address: int) -> Iterator[ScalarPart]:
        """Every leaf that holds a changed byte, in order of address."""
        yield from self._descend(place, type_, address, 0, False, frozenset())

    def _hit(self, start: int, size: int) -> bool:
        index = bisect.bisect_left(self.changed, start)
        return index < len(self.changed) and self.changed[index] < start + size

    def _descend(
        self,
        place: Expression,
        type_: gdb.Type,
        address: int,
        depth: int,
        union: bool,
        hidden: FrozenSet[str],
    ) -> Iterator[ScalarPart]:
        about = type_facts.info(type_)
        if about.size <= 0 or not self._hit(address, about.size):
            return
        if (about.printer and self.printers) or depth >= MAX_DEPTH:
            yield ScalarPart(
                place.object(), type_, address, about.size, union=union, printer=about.printer
            )
        elif about.code in type_facts.STRUCTS and (about.fields or about.virtual):
            yield from self._members(about, place, type_, address, depth, union, hidden)
        elif about.element is not None and about.count and not type_facts.is_text(about.element):
            yield from self._elements(about, place, address, depth, union)
        else:
            yield ScalarPart(place.object(), type_, address, about.size, union=union)

    def _members(
        self,
        about: TypeInfo,
        place: Expression,
        type_: gdb.Type,
        address: int,
        depth: int,
        union: bool,
        hidden: FrozenSet[str],
    ) -> Iterator[ScalarPart]:
        shared = union or about.code == gdb.TYPE_CODE_UNION
        own = frozenset(field.name for field in about.fields if not field.base)
        told = False
        for field in about.fields:
            at = address + field.offset
            if (field.base or shared) and type_facts.is_empty(field.type):
                continue  # it has no bytes of its own
            if field.bits:
                leaf = _bit_field(place, field, at, shared)
                if self._hit(at, leaf.size) and self._differs(leaf):
                    told = True
                    yield leaf
                continue
            if field.base:
                # A member of a base needs no more than its name, unless another hides it.
                inner, names = place, hidden | own
            elif not field.name or _holds_elements(about, field):
                inner, names = place, hidden
            else:
                name = field.name
                if name in hidden:
                    name = f"{about.plain.name}::{name}"
                inner, names = place.member(name), frozenset()
            for leaf in self._descend(inner, field.type, at, depth + 1, shared, names):
                told = True
                yield leaf
        if about.virtual:
            for leaf in self._virtual_bases(about, place, address, depth, shared, hidden | own):
                told = True
                yield leaf
        if not told:  # bytes between the members
            yield ScalarPart(place.object(), type_, address, about.size, union=union, padding=True)

    def _virtual_bases(
        self,
        about: TypeInfo,
        place: Expression,
        address: int,
        depth: int,
        union: bool,
        hidden: FrozenSet[str],
    ) -> Iterator[ScalarPart]:
        """Bases whose place the object's own table tells."""
        for field in about.plain.fields():
            if not field.is_base_class or getattr(field, "bitpos", None) is not None:
                continue
            with contextlib.suppress(*FAILURES, TypeError):
                pointer = gdb.Value(address).cast(about.plain.pointer())
                where = pointer.dereference()[field].address
                if where is not None and field.type is not None:
                    at = int(where)
                    yield from self._descend(place, field.type, at, depth + 1, union, hidden)

    def _elements(
        self, about: TypeInfo, place: Expression, address: int, depth: int, union: bool
    ) -> Iterator[ScalarPart]:
        assert about.element is not None
        step = about.size // about.count
        last = -1
        # Only the elements that changed: an array may have millions.
        for at in self.changed[bisect.bisect_left(self.changed, address) :]:
            if at >= address + about.size:
                break
            index = (at - address) // step
            if index != last:
                last = index
                inner = place.element(about.low + index)
                start = address + index * step
                yield from self._descend(inner, about.element, start, depth + 1, union, frozenset())

    def _differs(self, leaf: ScalarPart) -> bool:
        both = [self.bytes_of(leaf, after) for after in (False, True)]
        return None not in both and both[0] != both[1]

    def bytes_of(self, leaf: ScalarPart, after: bool) -> Optional[bytes]:
        """The leaf's bytes in that state, a bit field's widened to its type; None."""
        data = self.read(leaf.address, leaf.size, after)
        if data is None or not leaf.bits:
            return data
        value = int.from_bytes(data, "little") >> leaf.shift & (1 << leaf.bits) - 1
        if value >> leaf.bits - 1 and _is_signed(leaf.type):
            value -= 1 << leaf.bits
        size = leaf.type.sizeof
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _holds_elements(about: TypeInfo, field: MemberField) -> bool:
    return field.name == "_M_elems" and bool(_ARRAY.match(about.plain.name or ""))


def _bit_field(place: Expression, field: MemberField, address: int, union: bool) -> ScalarPart:
    size = (field.bit % 8 + field.bits + 7) // 8
    inner = place.member(field.name)
    return ScalarPart(inner, field.type, address, size, field.bits, field.bit % 8, union)


def _is_signed(type_: gdb.Type) -> bool:
    try:
        return bool(gdb.Value(-1).cast(type_) < gdb.Value(0).cast(type_))
    except FAILURES:
        return False


def settings() -> Tuple[object, ...]:
    """gdb's settings that values depend on, as a key of what is remembered."""
    return tuple(gdb.parameter(name) for name in ("output-radix", "print symbol", "print address"))


def needs_memory(about: TypeInfo) -> bool:
    """Whether gdb reads memory to show such a value: strings behind pointers, pretty printers."""
    return about.printer or type_facts.is_string(about.plain)


def text_of_bytes(leaf: ScalarPart, data: bytes, key: Tuple[object, ...]) -> str:
    """The value of a leaf that needs no memory, as gdb prints it.  `key`: `settings()`."""
    about = type_facts.info(leaf.type)
    text = about.texts.get((key, data))
    if text is None:
        if len(about.texts) >= MAX_TEXTS:
            about.texts.clear()
        text = about.texts[key, data] = _text(leaf, about, data)
    return text


def _text(leaf: ScalarPart, about: TypeInfo, data: bytes) -> str:
    if len(data) > type_facts.largest_value():
        raise ValueError("larger than max-value-size")
    if about.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        return hex(int.from_bytes(data, "little"))
    return shown(gdb.Value(data, leaf.type))


def text_in_memory(leaf: ScalarPart) -> str:
    """The value of a leaf as memory is shown now, "" where it cannot be read."""
    try:
        pointer = gdb.Value(leaf.address).cast(leaf.type.pointer())
        return shown(pointer.dereference())
    except Exception:  # a printer's own code may raise anything
        return ""


def shown(value: gdb.Value) -> str:
    """A value's text as `print` shows it, cut at MAX_TEXT."""
    text = str(value.format_string(max_elements=64))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def hex_text(data: bytes) -> str:
    """Bytes for which there is no type: "0a 00 ff"."""
    text = data[:MAX_HEX_BYTES].hex(" ")
    return text + " …" if len(data) > MAX_HEX_BYTES else text
