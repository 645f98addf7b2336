"""Members of a variable, and their values from plain bytes."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Iterator, List

import gdb

from gdb_uffd.client.render import Change

MAX_CHANGES = 64
"""Named changes told of one page; a changed array of a thousand elements is told by 64."""

MAX_DEPTH = 12
"""Nesting of members that is followed; types come from files and may be nonsense."""

MAX_TEXT = 120
"""Characters of a value; a union or a vector may print long."""

MAX_VALUE_BYTES = 256
"""Larger scalars, which are text buffers and unions, are told as bytes."""

_STRUCTS = (gdb.TYPE_CODE_STRUCT,)


@dataclass(frozen=True)
class Leaf:
    """A scalar (or what is told whole) inside a variable."""

    name: str
    type: gdb.Type
    address: int
    size: int


def leaves(name: str, type_: gdb.Type, address: int, changed: List[int]) -> Iterator[Leaf]:
    """The scalars of the object at `address` that hold one of the `changed` addresses.

    `changed` is ascending.
    """
    yield from _descend(name, type_, address, changed, 0)


def _hit(changed: List[int], start: int, size: int) -> bool:
    index = bisect.bisect_left(changed, start)
    return index < len(changed) and changed[index] < start + size


def _descend(
    name: str, type_: gdb.Type, address: int, changed: List[int], depth: int
) -> Iterator[Leaf]:
    plain = type_.strip_typedefs()
    size = plain.sizeof
    if size <= 0 or not _hit(changed, address, size):
        return
    if depth < MAX_DEPTH and plain.code in _STRUCTS:
        members = [
            field
            for field in plain.fields()
            # Static members have no position; a bit field has no address of its own.
            if getattr(field, "bitpos", None) is not None and field.type is not None
        ]
        if members and not any(field.bitsize for field in members):
            for field in members:
                if field.bitpos is None or field.type is None:
                    continue
                inner = f"{name}.{field.name}" if field.name and not field.is_base_class else name
                at = address + field.bitpos // 8
                yield from _descend(inner, field.type, at, changed, depth + 1)
            return
    if depth < MAX_DEPTH and plain.code == gdb.TYPE_CODE_ARRAY and not _is_vector(plain):
        element = plain.target()
        step = element.strip_typedefs().sizeof
        if step > 0 and not _is_text(element):
            # Only the elements that changed: an array may have millions.
            last = -1
            first = bisect.bisect_left(changed, address)
            low = plain.range()[0]
            for at in changed[first:]:
                if at >= address + size:
                    break
                index = (at - address) // step
                if index != last:
                    last = index
                    inner = f"{name}[{low + index}]"
                    yield from _descend(inner, element, address + index * step, changed, depth + 1)
            return
    yield Leaf(name, type_, address, size)


def _is_vector(type_: gdb.Type) -> bool:
    """A vector type; gdb calls it an array, and prints it whole."""
    return "__attribute__" in str(type_) and "vector_size" in str(type_)


def _is_text(type_: gdb.Type) -> bool:
    """char and its kin: an array of them reads best as one string."""
    plain = type_.strip_typedefs()
    return plain.code == gdb.TYPE_CODE_CHAR or (
        plain.code == gdb.TYPE_CODE_INT and plain.sizeof == 1 and "char" in str(plain)
    )


def largest() -> int:
    """Bytes of the largest object that is shown as a value.

    Never beyond `max-value-size`: gdb 13 lets that error fly through the interpreter when
    a gdb.Value is made from bytes, which breaks gdb's Python for good.
    """
    limit = gdb.parameter("max-value-size")
    return min(MAX_VALUE_BYTES, int(limit)) if limit is not None else MAX_VALUE_BYTES


def only_bytes(leaf: Leaf, changed: List[int]) -> Change:
    """The change of an object that is too large to print: where it begins, how much it is."""
    first = bisect.bisect_left(changed, leaf.address)
    last = bisect.bisect_left(changed, leaf.address + leaf.size)
    offset = changed[first] - leaf.address if first < len(changed) else 0
    name = f"{leaf.name}+{offset:#x}" if offset else leaf.name
    return Change(name, str(leaf.type), "", "", last - first)


def change(leaf: Leaf, before: bytes, after: bytes) -> Change:
    """The change of one scalar, as gdb would print both values."""
    try:
        texts = [_text(leaf.type, data) for data in (before, after)]
    except (gdb.error, ValueError, TypeError):
        texts = ["", ""]  # a type gdb cannot print from bytes
    if texts[0] == texts[1]:  # cut off, or padding: only the bytes tell
        count = sum(x != y for x, y in zip(before, after))
        return Change(leaf.name, str(leaf.type), "", "", count)
    return Change(leaf.name, str(leaf.type), texts[0], texts[1], leaf.size)


def _text(type_: gdb.Type, data: bytes) -> str:
    plain = type_.strip_typedefs()
    if plain.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        # Never through the pointer: what it pointed at then is not there now.
        return hex(int.from_bytes(data, "little"))
    value = gdb.Value(data, type_)
    text = str(value.format_string(max_elements=40, raw=True, symbols=False))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
