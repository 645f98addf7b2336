"""Where the search for a block's name begins: the call's arguments, its value, variables."""

from __future__ import annotations

import contextlib
import re
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import gdb

from gdb_uffd.client.names import printers, type_facts
from gdb_uffd.client.names.addresses import MALLOC, block_symbols
from gdb_uffd.client.names.block_paths import Root
from gdb_uffd.client.names.expression import Expression, arguments, variable
from gdb_uffd.client.names.shapes import Shapes, apply
from gdb_uffd.client.names.variables import no_calls
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.code import code_address, file_of, frames, line_at
from gdb_uffd.client.session.state import Context
from gdb_uffd.dataclass import dataclass

MAX_GLOBALS = 2_000
"""Variables of one source file that a search begins from."""

MAX_FRAMES = 16
"""Frames whose locals a search begins from."""

MAX_CONTAINERS = 32
"""Containers whose elements a search begins from."""

CONTAINER_DEPTH = 4
"""Members and pointers between a variable and such a container."""

_PLAIN = re.compile(r"[\w\s.\->\[\]*&:$()]*")
"""Arguments that are looked at again: nothing in them assigns, and calls are forbidden."""

_HAS_NAME = re.compile(r"[A-Za-z_$]")

_RETURNS = (gdb.TYPE_CODE_PTR, *type_facts.STRUCTS)


def of_call(context: Context, shapes: Shapes) -> Iterator[Root]:
    """The call's value, then its arguments."""
    if context.number:
        value = gdb.history(context.number)
        yield from _of_value(Expression(f"${context.number}"), value, shapes)
    texts = [t for t in arguments(context.expression) if _PLAIN.fullmatch(t) and "--" not in t]
    texts = [t for t in texts if _HAS_NAME.search(t)]
    if not texts:
        return
    with no_calls():
        for text in texts:
            with contextlib.suppress(*FAILURES):
                value = gdb.parse_and_eval(text)
                inner = text[1:].strip() if text.startswith("&") else ""
                if inner and value.type.code == gdb.TYPE_CODE_PTR:
                    yield Root(variable(inner), value.type.target(), int(value))
                else:
                    yield from _of_value(variable(text), value, shapes)


def _of_value(place: Expression, value: gdb.Value, shapes: Shapes) -> Iterator[Root]:
    """What the pointers in a value point to; a value in memory is looked at as it lies there."""
    plain = value.type.strip_typedefs()
    if value.address is not None:
        yield Root(place, value.type, int(value.address))
    elif plain.code in _RETURNS:
        number = shapes.number(value.type)
        raw = bytes(value.bytes) if hasattr(value, "bytes") else None
        for pointer in shapes.all[number].pointers if number >= 0 else ():
            inner = apply(place, pointer.accessors)
            if raw is not None:
                if not pointer.guards.hold(raw):
                    continue
                at = int.from_bytes(raw[pointer.offset : pointer.offset + 8], "little")
            elif plain.code == gdb.TYPE_CODE_PTR:
                at = int(value) & (1 << 64) - 1
            else:
                continue  # gdb < 15 does not give a structure's bytes
            if pointer.target >= 0 and at:
                yield Root(inner.target(), shapes.all[pointer.target].type, at)


_globals: Dict[str, List[Root]] = {}


def forget() -> None:
    """Object files came or went."""
    _globals.clear()


def of_files(pcs: Sequence[int]) -> Iterator[Root]:
    """The variables of the source files that hold these instructions."""
    seen = set()
    for pc in pcs:
        symtab = line_at(pc).symtab
        if symtab is None or file_of(symtab) in seen:
            continue
        seen.add(file_of(symtab))
        if file_of(symtab) not in _globals:
            _globals[file_of(symtab)] = list(_of_file(symtab))
        yield from _globals[file_of(symtab)]


def _of_file(symtab: gdb.Symtab) -> Iterator[Root]:
    count = 0
    for block in (symtab.global_block(), symtab.static_block()):
        for symbol in block:
            if not symbol.is_variable or symbol.addr_class != gdb.SYMBOL_LOC_STATIC:
                continue
            if MALLOC.match(str(symbol.name)):
                continue  # its lists lead to every block
            count += 1
            if count > MAX_GLOBALS:
                return
            with contextlib.suppress(*FAILURES):
                value = symbol.value()
                if value.address is not None and _may_point(value.type):
                    place = variable(str(symbol.print_name))
                    yield Root(place, value.type, int(value.address), symbol.symtab)


def in_containers(roots: Sequence[Root]) -> Iterator[Root]:
    """The elements of containers, in memory as it is shown now: of those that the roots are or
    hold, or point to."""
    places: List[_Place] = []
    for root in roots:
        _containers(_Place(root, (), root.type, root.address), places, 0)
        if len(places) >= MAX_CONTAINERS:
            break
    found = [_reached(place) for place in places[:MAX_CONTAINERS]]
    with printers.language(holder.type for holder in found):
        states = [printers.state(h.type, h.address) for h in found]
    for holder, state in zip(found, states):
        for child in state.children if state is not None else ():
            if child.address is not None and child.value_type is not None:
                place = Expression(f"{holder.place.text}{child.label}")
                yield Root(place, child.value_type, child.address)


@dataclass(frozen=True)
class _Place:
    """An object behind a root: the members on the way to it, None for what a pointer points to."""

    root: Root
    way: Tuple[Optional[str], ...]
    type: gdb.Type
    address: int


def _reached(place: _Place) -> Root:
    expression = place.root.settled().place
    for step in place.way:
        expression = expression.target() if step is None else expression.member(step)
    return Root(expression, place.type, place.address)


def _containers(place: _Place, found: List[_Place], depth: int) -> None:
    """Add those that are in or behind the object at `place`."""
    if len(found) >= MAX_CONTAINERS or not _leads(place.type, depth):
        return
    about = type_facts.info(place.type)
    if about.printer:
        found.append(place)
    elif about.code in type_facts.STRUCTS:
        for field in about.fields:
            if not field.bits:
                way = (*place.way, field.name) if field.name and not field.base else place.way
                at = place.address + field.offset
                _containers(_Place(place.root, way, field.type, at), found, depth + 1)
    elif about.code == gdb.TYPE_CODE_PTR:
        with contextlib.suppress(*FAILURES):
            raw = gdb.selected_inferior().read_memory(place.address, 8)
            at = int.from_bytes(bytes(raw), "little")
            if at:
                way = (*place.way, None)
                _containers(_Place(place.root, way, about.plain.target(), at), found, depth + 1)


def _leads(type_: gdb.Type, depth: int) -> bool:
    """Whether a container may be in or behind an object of the type: most types lead to none, and
    memory is not read for these."""
    if depth > CONTAINER_DEPTH:
        return False
    about = type_facts.info(type_)
    if depth not in about.leads:
        about.leads[depth] = False
        if about.printer:
            about.leads[depth] = True
        elif about.code in type_facts.STRUCTS:
            fields = (field.type for field in about.fields if not field.bits)
            about.leads[depth] = any(_leads(each, depth + 1) for each in fields)
        elif about.code == gdb.TYPE_CODE_PTR:
            target = about.plain.target()
            if target.strip_typedefs().code in type_facts.STRUCTS:
                about.leads[depth] = _leads(target, depth + 1)
    return about.leads[depth]


def _may_point(type_: gdb.Type) -> bool:
    code = type_.strip_typedefs().code
    return code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ARRAY, *type_facts.STRUCTS)


def of_frames() -> Iterator[Root]:
    """Locals and arguments of the selected thread's innermost frames, the innermost first."""
    for frame in frames(MAX_FRAMES, dummies=True):
        with contextlib.suppress(*FAILURES):
            if frame.type() != gdb.DUMMY_FRAME:
                yield from of_frame(frame)


def of_frame(frame: gdb.Frame) -> Iterator[Root]:
    """Its locals and arguments, and what those in registers point to."""
    for symbol in block_symbols(code_address(frame)):
        if not (symbol.is_variable or symbol.is_argument) or not symbol.needs_frame:
            continue
        with contextlib.suppress(*FAILURES):
            value = symbol.value(frame)
            if not _may_point(value.type):
                continue
            if value.address is not None:
                yield Root(variable(symbol.name), value.type, int(value.address))
            elif value.type.strip_typedefs().code == gdb.TYPE_CODE_PTR:
                target = value.type.strip_typedefs().target()
                at = int(value) & (1 << 64) - 1
                yield Root(Expression(symbol.name, True), target, at)
