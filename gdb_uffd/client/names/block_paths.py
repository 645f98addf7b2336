"""Blocks of the heap as the program names them: `*head->next`, `table[3]->name`, `primes[2]`."""

from __future__ import annotations

import contextlib
from dataclasses import field
from typing import Dict, Optional, Sequence

import gdb

from gdb_uffd.client.names.addresses import expression_for
from gdb_uffd.client.names.expression import Expression, at_address, variable
from gdb_uffd.client.names.shapes import (
    ALWAYS,
    NEVER,
    SMART,
    VECTOR,
    VOID,
    Container,
    Shapes,
    apply,
)
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import Reach
from gdb_uffd.protocol.model import Block, Path


@dataclass(frozen=True)
class Root:
    """Where a search begins: an object in memory, and the expression that means it."""

    place: Expression
    type: gdb.Type
    address: int
    symtab: Optional[gdb.Symtab] = None  # `place` is only the name in this file

    def settled(self) -> "Root":
        """With an expression that gdb reads; finding one takes gdb long, so only where needed."""
        if self.symtab is None:
            return self
        name = expression_for(self.place.text, self.address, self.symtab)
        return Root(variable(name), self.type, self.address)


ROUNDED = 24
"""malloc makes what is asked for less than this larger (request2size, malloc/malloc.c)."""


@dataclass
class FoundBlock:
    """What a block is.  `place` is the object at `address` (not a pointer to it), of `type`
    (None: void); `spreads`, `count`: whether more of them may lie behind it, and how many there
    are as far as that is told.  `holder`: the container, shown by a pretty printer, that keeps the
    block for itself."""

    block: Block
    place: Expression
    type: Optional[gdb.Type]
    address: int
    spreads: int = ALWAYS
    count: int = 1
    vector: bool = False
    holder: Optional[Root] = None
    after: bool = True
    smart: str = ""  # the pointer of the C++ library that keeps its counts in the block

    @property
    def most(self) -> int:
        """How many of them the block can be said to hold."""
        size = self.type.sizeof if self.type is not None else 0
        if self.address != self.block.start or size <= 0 or self.spreads == NEVER:
            return 1  # only the object itself is known
        fit = self.block.size // size
        if self.vector:
            return fit
        if self.spreads == ALWAYS and (size <= ROUNDED or self.block.size % size < ROUNDED):
            return fit
        return min(fit, self.count)


@dataclass
class Paths:
    """The searches for one report; `which_all` as in quffd.view."""

    session: Session
    which_all: bool
    shapes: Shapes
    found: Dict[int, FoundBlock] = field(default_factory=dict)  # by the block's start

    def search(self, roots: Sequence[Root], blocks: Sequence[Block], after: bool) -> None:
        """Find blocks that are not found yet, in the memory before or after."""
        wanted = [b for b in blocks if b.start not in self.found]
        numbered = [(root, self.shapes.number(root.type)) for root in roots]
        used = [(root, number) for root, number in numbered if number != VOID]
        if not wanted or not used:
            return
        new = self.shapes.all[self.shapes.sent :]
        asked = Reach(
            fresh=self.shapes.sent == 0,
            types=[shape.told() for shape in new],
            roots=[(root.address, number) for root, number in used],
            wanted=[(b.start, b.size) for b in wanted],
            after=after,
            all=self.which_all,
        )
        paths = self.session.request(asked)
        self.shapes.sent = len(self.shapes.all)
        for block, path in zip(wanted, paths):
            if path is not None:
                with contextlib.suppress(*FAILURES, IndexError):
                    self.found[block.start] = self._name(block, path, [r for r, _ in used])

    def _name(self, block: Block, path: Path, roots: Sequence[Root]) -> FoundBlock:
        if path.root < 0:
            return self._by_address(block, path)
        walk = _Walk(self.shapes, roots[path.root].settled())
        for address, element, index in path.steps:
            walk.step(address, element, index)
        shape = self.shapes.all[path.type] if path.type >= 0 else None
        return FoundBlock(
            block,
            walk.place,
            shape.type if shape is not None else None,
            path.at,
            shape.spreads if shape is not None else NEVER,
            path.count,
            walk.vector,
            walk.holder,
            path.after,
            walk.smart,
        )

    def _by_address(self, block: Block, path: Path) -> FoundBlock:
        """The path is too long to read: the type is known by it all the same."""
        if path.type < 0:
            raise IndexError(path.type)
        shape = self.shapes.all[path.type]
        name = str(shape.type.unqualified())
        place = at_address(name, path.at)
        return FoundBlock(
            block, place, shape.type, path.at, shape.spreads, path.count, after=path.after
        )


class _Walk:
    """From a root along a path; `place` is the object reached so far, or (`vector`) the vector
    whose elements they are."""

    def __init__(self, shapes: Shapes, root: Root) -> None:
        self._shapes = shapes
        self._number = shapes.number(root.type)
        self.place = root.place
        self.vector = False
        self.smart = ""
        self.holder: Optional[Root] = None

    def step(self, address: int, element: int, index: int) -> None:
        """One pointer further, or into one of the arrays (`index` < 0)."""
        shape = self._shapes.all[self._number]
        place = element_of(self.place, element, self.vector)
        self.vector, self.smart = False, ""
        here = address + element * shape.size
        if index < 0:
            array = shape.arrays[-1 - index]
            self._note(array.container, place, here)
            self._number = array.element
            self.place, self.vector = apply(place, array.accessors), True
            return
        pointer = shape.pointers[index]
        container = pointer.container
        self._number = pointer.target
        if container is not None and container.matches(VECTOR):
            self.place, self.vector = apply(place, container.accessors), True
        elif container is not None and container.matches(SMART):
            pointer_ = apply(place, container.accessors)
            self.place, self.smart = pointer_.target(), pointer_.object().text
        else:
            self._note(container, place, here)
            inner = apply(place, pointer.accessors)
            self.place = inner if pointer.reference else inner.target()

    def _note(self, container: Optional[Container], place: Expression, address: int) -> None:
        """Remember the outermost container that keeps what lies behind for itself."""
        if container is not None and self.holder is None:
            holder = apply(place, container.accessors).object()
            self.holder = Root(holder, container.type, address + container.offset)


def element_of(place: Expression, index: int, vector: bool) -> Expression:
    """The object `index` places on: in a block, in an array, or in a vector."""
    if vector or not place.pointer:
        return place.element(index) if vector or index else place
    return place.neighbour(index)
