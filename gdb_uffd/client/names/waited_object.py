"""What a call waits for, as the program names it: a lock, a semaphore, a thread, a future."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import deque
from typing import Deque, Iterator, Optional, Sequence, Set, Tuple

import gdb

from gdb_uffd.client.names import addresses, search_roots
from gdb_uffd.client.names.block_paths import Root
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.heap_names import leaf
from gdb_uffd.client.names.shapes import Shapes, apply
from gdb_uffd.client.names.variables import evaluate_name, no_calls
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.code import code_address, line_at

MAX_OBJECTS = 512
"""Objects that are looked at, from variable to variable and where their pointers lead."""

MAX_CANDIDATES = 16
"""Ways to one object that are looked at for one of the right class."""

THREAD_BYTES = 4096
"""A pthread_t is the address of glibc's struct pthread, which is smaller (nptl/descr.h);
pthread_join waits on the TID in it."""

_INTERNAL = re.compile(r"(?:\.|->)_[_A-Z].*$")
"""Members with names of the implementation's (C11 7.1.3): where the library's own object begins."""


def pointer_to(address: int, frames: Sequence[gdb.Frame], shapes: Shapes) -> str:
    """ "&queue.lock", "m": a pointer to the object of the program's that holds `address`, as far as
    arguments and locals of its `frames`, innermost first, and variables of their files lead there;
    else as `by_symbol`."""
    found = next(_objects(address, frames, shapes), None)
    if found is None:
        return by_symbol(address)
    return found.text if found.pointer else f"&{found.text}"


def of_class(name: str, address: int, frames: Sequence[gdb.Frame], shapes: Shapes) -> str:
    """ "answer": the object that a member function of the class `name` waits with, "" for none."""
    first = ""
    for found in itertools.islice(_objects(address, frames, shapes), MAX_CANDIDATES):
        first = first or found.text
        value = evaluate_name(found.text)
        if value is not None and _template(str(value.type.strip_typedefs())) == _template(name):
            return found.text
    return first


def _template(name: str) -> str:
    return re.sub(r"\b__\w+::", "", name.partition("<")[0])


def _objects(address: int, frames: Sequence[gdb.Frame], shapes: Shapes) -> Iterator[Expression]:
    """The program's own objects that hold `address`, each by the way that leads there."""
    with no_calls():
        for root in _reached(frames, shapes):
            with contextlib.suppress(*FAILURES):
                if not 0 <= address - root.address < root.type.sizeof:
                    continue
                place = root.settled().place
                text = _INTERNAL.sub("", leaf(place, root.type, root.address, address))
                is_pointer = place.pointer and text in (place.text, place.object().text)
                yield (
                    Expression(_INTERNAL.sub("", place.text), True)
                    if is_pointer
                    else Expression(text)
                )


def by_symbol(address: int) -> str:
    """ "&own", "0x4060 <queue+8>": by the variable that holds the address; "" when none does."""
    known = addresses.variable(address)
    if known is None:
        return ""
    distance = address - known.address
    return f"{address:#x} <{known.name}+{distance}>" if distance else f"&{known.name}"


def _reached(frames: Sequence[gdb.Frame], shapes: Shapes) -> Iterator[Root]:
    """Variables of the frames and of their files, then what pointers in these lead to."""
    pcs = [code_address(frame) for frame in frames]
    first = (root for frame in frames for root in search_roots.of_frame(frame))
    todo: Deque[Root] = deque()
    for root in itertools.chain(first, search_roots.of_files(pcs)):
        todo.append(root)
        yield root
    seen: Set[Tuple[int, str]] = set()
    while todo and len(seen) < MAX_OBJECTS:
        root = todo.popleft()
        key = root.address, str(root.type)
        if key in seen:
            continue
        seen.add(key)
        for target in _targets(root, shapes):
            todo.append(target)
            yield target


def _targets(root: Root, shapes: Shapes) -> Iterator[Root]:
    number = shapes.number(root.type)
    if number < 0:
        return
    shape = shapes.all[number]
    with contextlib.suppress(*FAILURES):
        raw = bytes(gdb.selected_inferior().read_memory(root.address, shape.size))
        for pointer in shape.pointers:
            at = int.from_bytes(raw[pointer.offset : pointer.offset + 8], "little")
            if at and pointer.target >= 0 and pointer.guards.hold(raw):
                place = apply(root.settled().place, pointer.accessors).target()
                yield Root(place, shapes.all[pointer.target].type, at)


def thread_joined(address: int, frames: Sequence[gdb.Frame]) -> str:
    """The variable that holds the pthread_t of the thread whose TID lies at `address`."""
    for frame in frames:
        for symbol in addresses.block_symbols(code_address(frame)):
            if _is_thread(symbol, address, frame):
                return str(symbol.print_name)
    for symtab in filter(None, (line_at(code_address(frame)).symtab for frame in frames)):
        for block in (symtab.global_block(), symtab.static_block()):
            for symbol in block:
                if _is_thread(symbol, address):
                    return str(symbol.print_name)
    return ""


def _is_thread(symbol: gdb.Symbol, address: int, frame: Optional[gdb.Frame] = None) -> bool:
    if not symbol.is_variable and not symbol.is_argument:
        return False
    with contextlib.suppress(*FAILURES):
        if symbol.type is not None and symbol.type.unqualified().name == "pthread_t":
            value = symbol.value(frame) if frame and symbol.needs_frame else symbol.value()
            return 0 < address - int(value) < THREAD_BYTES
    return False
