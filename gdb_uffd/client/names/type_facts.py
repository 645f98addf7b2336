"""Types as gdb knows them, looked at once: members, pointers, who prints them."""

from __future__ import annotations

import contextlib
from dataclasses import field
from typing import Any, Dict, List, Optional, Tuple

import gdb

from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.dataclass import dataclass

STRUCTS = (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION)
POINTERS = (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF)

MAX_FIELDS = 1024
"""Members of one structure that are looked at; types come from files and may be nonsense."""

MAX_NESTING = 16
"""Members within members that are looked at."""

MAX_KNOWN = 20_000
"""Types that are remembered."""

MAX_PRINTED = 1 << 16
"""Bytes of the largest object that a pretty printer is asked about."""

Key = Tuple[Any, ...]


@dataclass(frozen=True)
class MemberField:
    """A member: bytes from the start of its structure, and where a bit field lies in it."""

    name: str  # "" for an anonymous structure or union
    type: gdb.Type
    offset: int
    base: bool  # a base class
    bits: int = 0  # of a bit field; 0 for any other member
    bit: int = 0  # from the start of the structure, as x86-64 counts (psABI 3.1.2)


@dataclass
class TypeInfo:
    """What is known of a type without its typedefs.  `fields`: members with a fixed place."""

    plain: gdb.Type
    code: int
    size: int
    fields: List[MemberField]
    name: str  # as gdb writes it, typedefs and all
    element: Optional[gdb.Type] = None  # of an array
    count: int = 0
    low: int = 0  # the first index
    printer: bool = False
    virtual: bool = False  # has virtual bases, whose place the object itself tells
    texts: Dict[Tuple[Any, ...], str] = field(default_factory=dict)  # of values, by their bytes
    leads: Dict[int, bool] = field(default_factory=dict)  # to a container; see gdb_roots


_known: Dict[Key, TypeInfo] = {}
_objects: Dict[int, Tuple[gdb.Type, TypeInfo]] = {}
"""The same by gdb.Type object, which is kept so that its id stays its own: making a key takes ten
times as long."""


def forget() -> None:
    """Object files came or went: a name may mean another type."""
    _known.clear()
    _objects.clear()


def key_of(type_: gdb.Type) -> Key:
    """Tells types apart: by name and size, structures also by their members' names."""
    code = type_.code
    if code in STRUCTS:
        with contextlib.suppress(*FAILURES, TypeError):
            names = tuple(type_.keys())
            text = str(type_)
            if "{" in text:  # anonymous: its members are all there is
                return (code, text, type_.sizeof, names, tuple(str(f.type) for f in type_.fields()))
            return (code, text, type_.sizeof, names)
    return (code, str(type_), type_.sizeof)


def info(type_: gdb.Type) -> TypeInfo:
    """What is known of `type_`; gdb.error for one that gdb cannot resolve."""
    seen = _objects.get(id(type_))
    if seen is not None and seen[0] is type_:
        return seen[1]
    known = _look_up(type_)
    if len(_objects) >= MAX_KNOWN:
        _objects.clear()
    _objects[id(type_)] = type_, known
    return known


def _look_up(type_: gdb.Type) -> TypeInfo:
    plain = type_.strip_typedefs()
    # A printer may be registered for the typedef's name.
    key = (str(type_), *key_of(plain))
    known = _known.get(key)
    if known is None:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        known = _known[key] = _examine(type_, plain)
    return known


def _examine(type_: gdb.Type, plain: gdb.Type) -> TypeInfo:
    made = TypeInfo(plain, plain.code, max(0, plain.sizeof), [], str(type_))
    if plain.code in STRUCTS:
        made.fields, made.virtual = _fields(plain)
        made.printer = _has_printer(type_, made.size)
    elif plain.code == gdb.TYPE_CODE_ARRAY:
        made.element = plain.target()
        step = made.element.strip_typedefs().sizeof
        made.low = plain.range()[0]
        made.count = made.size // step if step > 0 else 0
        if step <= 0 or is_vector(plain):
            made.element = None
    return made


def _fields(plain: gdb.Type) -> Tuple[List[MemberField], bool]:
    found: List[MemberField] = []
    virtual = False
    for member in plain.fields()[:MAX_FIELDS]:
        position = getattr(member, "bitpos", None)
        if member.type is None:
            continue
        if position is None:
            # A static member has no position; that of a virtual base is not fixed.
            virtual |= bool(member.is_base_class)
            continue
        name, at, bits = member.name or "", position // 8, member.bitsize
        if not bits:
            found.append(MemberField(name, member.type, at, bool(member.is_base_class)))
        elif name:  # without one it is padding
            found.append(MemberField(name, member.type, at, False, bits, position))
    return found, virtual


def _has_printer(type_: gdb.Type, size: int) -> bool:
    """Whether a pretty printer takes values of the type; asked with a value of zeros."""
    if not 0 < size <= MAX_PRINTED or size > largest_value():
        return False
    try:
        return gdb.default_visualizer(gdb.Value(bytes(size), type_)) is not None
    except Exception:  # a printer's own code may raise anything
        return True


def leads_elsewhere(type_: gdb.Type, depth: int = 0) -> bool:
    """Whether an object of the type holds a pointer."""
    about = info(type_)
    if about.code in POINTERS or depth > MAX_NESTING:
        return True
    if about.element is not None:
        return leads_elsewhere(about.element, depth + 1)
    return any(leads_elsewhere(field.type, depth + 1) for field in about.fields)


def is_empty(type_: gdb.Type) -> bool:
    """A class without members, the bytes of whose object are another's where it is a base class."""
    about = info(type_)
    if about.code not in STRUCTS or about.virtual:
        return False
    return all(field.base and is_empty(field.type) for field in about.fields)


def bare_name(type_: gdb.Type) -> str:
    """A class's name without its typedefs and without "struct" before it."""
    plain = type_.strip_typedefs().unqualified()
    return plain.name or str(plain)


def largest_value() -> int:
    """`max-value-size`: beyond it gdb 13 lets an error fly through the interpreter when a
    gdb.Value is made from bytes, which breaks gdb's Python for good."""
    limit = gdb.parameter("max-value-size")
    return int(limit) if limit is not None else 1 << 62


def is_vector(type_: gdb.Type) -> bool:
    """A vector type; gdb calls it an array, and prints it whole."""
    return "__attribute__" in str(type_) and "vector_size" in str(type_)


def is_text(type_: gdb.Type) -> bool:
    """char and its kin: an array of them reads best as one string."""
    plain = type_.strip_typedefs()
    return plain.code == gdb.TYPE_CODE_CHAR or (
        plain.code == gdb.TYPE_CODE_INT and plain.sizeof == 1 and "char" in str(plain)
    )


def is_string(plain: gdb.Type) -> bool:
    """A pointer to characters: gdb prints the string behind it."""
    return plain.code == gdb.TYPE_CODE_PTR and is_text(plain.target())
