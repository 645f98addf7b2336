"""What a std::optional, a std::variant or a std::expected holds at the time: its other members are
dead, and what they point to is nobody's."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import Optional, Tuple

import gdb

from gdb_uffd.client.names import type_facts
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.type_facts import MemberField, TypeInfo
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.heap import Condition, has_member

LOOSE = re.compile(r"^std::(__\w+::)?(optional|variant|expected|pair|tuple)<")
"""They hold pointers for the program, as a structure does, not for themselves."""

_OPTIONAL = re.compile(r"^std::(__\w+::)?(_Optional_payload_base|__optional_destruct_base)<")
_VARIANT = re.compile(r"^std::__detail::__variant::_Variant_storage<")
_ALTERNATIVES = re.compile(r"^std::__detail::__variant::_Variadic_union<")
_EXPECTED = re.compile(r"^std::(__\w+::)?expected<")

_FLAGS = {"_M_payload": "_M_engaged", "": "__engaged_"}
"""The storage of an optional's value and what tells of it, in libstdc++ and in libc++."""

MAX_DEPTH = 16


@dataclass(frozen=True)
class Guards:
    """What must hold for a member to be alive; `open`: of a variant's alternatives, of the next."""

    conditions: Tuple[Condition, ...] = ()
    open: Optional[Condition] = None

    def hold(self, raw: bytes) -> bool:
        """Whether the object with these bytes has that member now."""
        return has_member(self.conditions, raw)


NONE = Guards()


def inside(guards: Guards, about: TypeInfo, member: MemberField, offset: int) -> Guards:
    """Those of a member of the object at `offset`, which has `guards` itself."""
    name = type_facts.bare_name(about.plain)
    if not name.startswith("std::"):
        return replace(guards, open=None) if guards.open else guards
    if _ALTERNATIVES.match(name) and guards.open is not None:
        at, size, value = guards.open
        if member.name == "_M_first":
            return Guards((*guards.conditions, guards.open))
        return replace(guards, open=(at, size, value + 1))
    condition: Optional[Condition] = None
    if _OPTIONAL.match(name) and member.name in _FLAGS:
        condition = _flag(about, _FLAGS[member.name], offset, 1)
    elif _VARIANT.match(name) and member.name == "_M_u":
        return replace(guards, open=_flag(about, "_M_index", offset, 0))
    elif _EXPECTED.match(name) and member.name in ("_M_val", "_M_unex"):
        condition = _flag(about, "_M_has_value", offset, int(member.name == "_M_val"))
    kept = (condition,) if condition is not None else ()
    # What lies between a variant and its alternatives, a base class, passes them on.
    return Guards((*guards.conditions, *kept), guards.open if member.base else None)


def _flag(about: TypeInfo, name: str, offset: int, value: int) -> Optional[Condition]:
    for field in about.fields:
        if field.name == name and not field.bits:
            return offset + field.offset, type_facts.info(field.type).size, value
    return None


@dataclass(frozen=True)
class HeldMember:
    """A member at an address, of the object `place`; `dead`: it is not what is held now."""

    place: Expression
    type: gdb.Type
    start: int
    dead: bool = False


def member_at(place: Expression, type_: gdb.Type, start: int, address: int) -> HeldMember:
    """The object at `start`, or where such a type lies on the way to the byte at `address`, what
    it holds there: of members that share the byte, the one that is alive."""
    at, guards, offset = HeldMember(place, type_, start), NONE, 0
    found = at
    with contextlib.suppress(*FAILURES):
        raw = bytes(gdb.selected_inferior().read_memory(start, type_facts.info(type_).size))
        for _ in range(MAX_DEPTH):
            about = type_facts.info(at.type)
            if about.code not in type_facts.STRUCTS:
                break
            there = address - start - offset
            holding = [
                (inside(guards, about, field, offset), field)
                for field in about.fields
                if not field.bits
                and 0 <= there - field.offset < type_facts.info(field.type).size
                and not type_facts.is_empty(field.type)
            ]
            if not holding:
                break
            guards, field = next((each for each in holding if _leads(*each, raw)), holding[0])
            offset += field.offset
            inner = at.place if field.base or not field.name else at.place.member(field.name)
            at = HeldMember(inner, field.type, start + offset, not guards.hold(raw))
            if guards.conditions:
                found = at
    return found


def _leads(guards: Guards, field: MemberField, raw: bytes) -> bool:
    """Whether the member is alive, or the rest of a variant's alternatives that holds it."""
    if guards.open is not None and not field.base:
        at, size, value = guards.open
        if not value <= int.from_bytes(raw[at : at + size], "little") < 1 << 8 * size - 1:
            return False
    return guards.hold(raw)
