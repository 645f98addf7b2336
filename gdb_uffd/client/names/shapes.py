"""Types as the server's search needs them: where their pointers lie, and what these point to."""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import Any, Dict, List, Optional, Tuple, Union

import gdb

from gdb_uffd.client.names import alternatives, type_facts
from gdb_uffd.client.names.alternatives import Guards
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.type_facts import TypeInfo
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import ArrayShape, PointerShape, TypeShape

MAX_SHAPES = 1024
"""Types that are followed from one session's roots; beyond them a pointer leads nowhere."""

MAX_POINTERS = 512
"""Pointers of one type."""

MAX_DEPTH = 8
"""Nesting of members in which pointers are looked for."""

VOID = -1

NEVER, ALWAYS, COUNTED = 0, 1, 2
"""As of quffd.reach (docs/protocol.md)."""

_BASES = re.compile(r"^std::.*_base(_aux)?(<.*>)?$")
"""Nodes of libstdc++'s containers as their pointers see them: the object behind is larger."""

VECTOR = re.compile(r"^std::(__\w+::)?vector<(?!bool\b)")  # that of bool holds words of bits
SMART = re.compile(r"^std::(__\w+::)?(unique_ptr|shared_ptr|__shared_ptr|auto_ptr)<")
"""Containers whose elements are reached as the source does it: `v[2]`, `p->x`."""

_NUMBER = re.compile(
    r"(?:^|_)(?:n|nr|num|number|count|cnt|len|length|size|used|room|cap|capacity|alloc|allocated"
    r"|max|total|filled|rows|cols|(?:n|num)_?[a-z]+s)(?:_|$)"
)
_NO_NUMBER = re.compile(r"(?:^|_)(?:ref|use_count|weak_count)")  # of those that hold the object

_COUNTS = "_M_refcount"
"""The member of a shared_ptr that points to its counts, not to the object."""

Accessor = Union[str, int]
"""A member's name or an array's index."""


@dataclass(frozen=True)
class Container:
    """An object that a pretty printer shows, on the way to a pointer inside it.  `loose`: what
    lies behind the pointer is none of its own."""

    accessors: Tuple[Accessor, ...]
    type: gdb.Type
    offset: int
    loose: bool = False

    def matches(self, pattern: "re.Pattern[str]") -> bool:
        """Whether its type's name begins so."""
        return bool(pattern.match(type_facts.bare_name(self.type)))


@dataclass(frozen=True)
class Pointer:
    """A pointer in a type.  `accessors` lead to it from the object."""

    offset: int
    target: int
    accessors: Tuple[Accessor, ...]
    container: Optional[Container] = None
    reference: bool = False
    guards: Guards = alternatives.NONE

    def told(self) -> PointerShape:
        """As the server needs it."""
        return PointerShape(self.offset, self.target, list(self.guards.conditions))


@dataclass(frozen=True)
class Array:
    """An array whose elements hold pointers."""

    offset: int
    element: int
    count: int
    accessors: Tuple[Accessor, ...]
    container: Optional[Container] = None
    guards: Guards = alternatives.NONE

    def told(self) -> ArrayShape:
        """As the server needs it."""
        return ArrayShape(self.offset, self.element, self.count, list(self.guards.conditions))


@dataclass
class Shape:
    """One type.  `spreads`: whether several may lie in a row behind a pointer to one."""

    type: gdb.Type
    size: int
    pointers: List[Pointer]
    arrays: List[Array]
    spreads: int = ALWAYS
    numbers: List[Tuple[int, int]] = field(default_factory=list)  # as quffd.reach takes them
    calls: bool = False  # it holds pointers to functions
    polymorphic: bool = False

    def told(self) -> TypeShape:
        """As the server needs it."""
        pointers = [pointer.told() for pointer in self.pointers]
        arrays = [array.told() for array in self.arrays]
        return TypeShape(self.size, pointers, arrays, self.spreads, self.numbers)


class Shapes:
    """The types of one session, by number; the server has the first `sent` of them."""

    def __init__(self) -> None:
        self.all: List[Shape] = []
        self.sent = 0
        self._numbers: Dict[Any, int] = {}
        self._open: List[int] = []

    def number(self, type_: gdb.Type) -> int:
        """The number of a type, VOID when there is none for it; what it points to is looked at,
        too."""
        found = self._number(type_)
        while self._open:
            self._fill(self.all[self._open.pop()])
        return found

    def _number(self, type_: gdb.Type) -> int:
        plain = type_.strip_typedefs()
        if plain.code in (gdb.TYPE_CODE_VOID, gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_METHOD):
            return VOID
        key = (str(type_), *type_facts.key_of(plain))
        if key not in self._numbers:
            if len(self.all) >= MAX_SHAPES:
                return VOID
            self._numbers[key] = len(self.all)
            self._open.append(len(self.all))
            self.all.append(Shape(type_, max(0, plain.sizeof), [], []))
        return self._numbers[key]

    def _fill(self, shape: Shape) -> None:
        try:
            self._collect(shape, shape.type, 0, (), None, 0, alternatives.NONE)
        except FAILURES:
            pass  # what was found so far is true
        name = type_facts.bare_name(shape.type)
        about = type_facts.info(shape.type)
        if shape.polymorphic or is_open_ended(about) or _BASES.match(name):
            shape.spreads = NEVER
        elif about.code in type_facts.STRUCTS and (shape.pointers or shape.arrays or shape.calls):
            # A pointer to a structure is one to one; what is larger begins with it, as often.
            shape.spreads = COUNTED

    def _collect(
        self,
        shape: Shape,
        type_: gdb.Type,
        offset: int,
        accessors: Tuple[Accessor, ...],
        container: Optional[Container],
        depth: int,
        guards: Guards,
    ) -> None:
        about = type_facts.info(type_)
        if len(shape.pointers) >= MAX_POINTERS or depth > MAX_DEPTH:
            return
        if about.code in type_facts.POINTERS:
            if container is not None and _COUNTS in accessors and container.matches(SMART):
                return
            reference = about.code != gdb.TYPE_CODE_PTR
            target = about.plain.target()
            if target.strip_typedefs().code in (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_METHOD):
                shape.calls = True
            else:
                number = self._number(target)
                keeps = None if container is not None and container.loose else container
                made = Pointer(offset, number, accessors, keeps, reference, guards)
                shape.pointers.append(made)
        elif about.code in type_facts.STRUCTS:
            written = _reached_as_written(about)
            if (about.printer or written) and (container is None or container.loose):
                loose = bool(alternatives.LOOSE.match(type_facts.bare_name(type_)))
                if container is None or written:
                    container = Container(accessors, type_, offset, loose)
                else:
                    container = replace(container, loose=loose)
            for member in about.fields:
                if member.name.startswith("_vptr"):
                    shape.polymorphic = True  # the object may be of a class derived from it
                elif not member.bits:
                    named = bool(member.name) and not member.base
                    inner = (*accessors, member.name) if named else accessors
                    at = offset + member.offset
                    more = alternatives.inside(guards, about, member, offset)
                    self._collect(shape, member.type, at, inner, container, depth + 1, more)
        elif about.code == gdb.TYPE_CODE_INT and accessors:
            if is_number(str(accessors[-1])) and len(shape.numbers) < MAX_POINTERS:
                shape.numbers.append((offset, about.size))
        elif about.element is not None and about.count and holds_pointers(about):
            number = self._number(about.element)
            if number != VOID and len(shape.arrays) < MAX_POINTERS:
                keeps = None if container is not None and container.loose else container
                array = Array(offset, number, about.count, accessors, keeps, guards)
                shape.arrays.append(array)


def is_number(name: str) -> bool:
    """Whether a member is named as the number of something: `count`, `nitems`, `itemCount`.  Any
    other small number may as well be what a pointer beside it has room for."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_NUMBER.search(words)) and not _NO_NUMBER.search(words)


def _reached_as_written(about: TypeInfo) -> bool:
    name = about.plain.name or ""
    return bool(VECTOR.match(name) or SMART.match(name))


def is_open_ended(about: TypeInfo) -> bool:
    """Whether a structure ends with an array of no fixed length (C11 6.7.2.1)."""
    if about.code not in type_facts.STRUCTS or not about.fields:
        return False
    last = about.fields[-1]
    inner = type_facts.info(last.type)
    return inner.code == gdb.TYPE_CODE_ARRAY and not inner.count and not last.bits


def holds_pointers(about: TypeInfo) -> bool:
    """Whether an array is worth a look: its elements are pointers or may hold some."""
    assert about.element is not None
    code = about.element.strip_typedefs().code
    followed = (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ARRAY, *type_facts.STRUCTS)
    return code in followed


def apply(place: Expression, accessors: Tuple[Accessor, ...]) -> Expression:
    """The member or element that `accessors` lead to."""
    for accessor in accessors:
        if isinstance(accessor, int):
            place = place.element(accessor)
        else:
            place = place.member(accessor)
    return place
