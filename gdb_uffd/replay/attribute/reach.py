"""How typed pointers lead from known objects to blocks of the heap: a bounded search.

The types come from gdb as plain numbers: offsets of pointers, and what they point to.  The memory
is whatever the program left there, so every pointer may be wild, and every length a lie.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from typing import Deque, Dict, List, Optional, Protocol, Sequence, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.heap import has_member
from gdb_uffd.protocol.messages_calls import TYPES_MAX, TypeShape
from gdb_uffd.protocol.model import MemoryUnavailable, Path, UffdError

NODES_MAX = 8192
"""Objects that one search looks at; some microseconds each."""

POINTERS_FOLLOWED_MAX = 1 << 18
"""Pointers that one search looks behind: an object may hold thousands."""

AFTER_HIT_MAX = 256
"""Objects looked at for a better path once every block has one."""

OBJECT_MAX = 1 << 16  # bytes of one object, or of an array, that are read
ELEMENTS_MAX = 512  # of an array whose length only the heap tells
HOLDER_MAX = 1 << 12  # of an object that is looked through for a number of what it points to
STEPS_MAX = 8
"""Pointers of the longest path that is told; beyond it only where the last one points."""

NEVER, ALWAYS, COUNTED = 0, 1, 2
"""COUNTED: where a number of them, or a pointer to their end, stands beside the pointer."""

VOID = -1
LOWEST = 1 << 16  # nothing is mapped below


class MemoryState(Protocol):
    """Memory in one state (views.View)."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes; MemoryUnavailable."""
        ...

    def word(self, address: int) -> Optional[int]:
        """A 64-bit word; None where it cannot be had."""
        ...


@dataclass(frozen=True)
class _Node:
    """An object to look at, and how it was found."""

    address: int
    type: int
    count: int
    root: int
    depth: int = 0
    step: Tuple[int, int] = (0, 0)
    parent: Optional["_Node"] = None


@dataclass(frozen=True)
class _Hit:
    """A pointer into a wanted block: its value and target type, the object that it stands in and
    which of its pointers it is; no `step` where the root itself lies in the block."""

    rank: int
    value: int
    target: int
    node: _Node
    step: Optional[Tuple[int, int]]


class Graph:
    """The types that gdb has told of, by number."""

    def __init__(self) -> None:
        self.shapes: List[TypeShape] = []

    def extend(self, shapes: Sequence[TypeShape]) -> None:
        """More types."""
        if len(self.shapes) + len(shapes) > TYPES_MAX:
            raise UffdError(f"more than {TYPES_MAX} types")
        self.shapes += shapes


class BlockSearch:
    """One search: `wanted` are blocks (start, size)."""

    def __init__(
        self, graph: Graph, view: MemoryState, wanted: Sequence[Tuple[int, int]], after: bool
    ) -> None:
        self._shapes = graph.shapes
        self._view = view
        self._after = after
        self._wanted = sorted(wanted)
        self._starts = [start for start, _ in self._wanted]
        self._best: Dict[int, _Hit] = {}
        self._seen: Set[Tuple[int, int]] = set()
        self._queue: Deque[_Node] = deque()
        self._followed = 0

    def run(self, roots: Sequence[Tuple[int, int]]) -> Dict[int, Path]:
        """The best path to each block that was reached, by the block's start."""
        for number, (address, type_) in enumerate(roots):
            root = _Node(address, type_, 1, number)
            self._claim(root, None, address, type_)
            self._add(root)
        looked = since = 0
        while self._queue and looked < NODES_MAX and since < AFTER_HIT_MAX:
            if self._followed >= POINTERS_FOLLOWED_MAX:
                break
            self._look(self._queue.popleft())
            looked += 1
            if len(self._best) == len(self._wanted):
                since += 1
                if all(best.rank == 0 for best in self._best.values()):
                    break
        return {start: self._path(best) for start, best in self._best.items()}

    def _add(self, node: _Node) -> None:
        known = 0 <= node.type < len(self._shapes)
        if known and (node.address, node.type) not in self._seen:
            self._seen.add((node.address, node.type))
            self._queue.append(node)

    def _look(self, node: _Node) -> None:
        shape = self._shapes[node.type]
        if not shape.pointers and not shape.arrays:
            return
        count = max(1, min(node.count, OBJECT_MAX // max(shape.size, 1)))
        try:
            raw = self._view.read(node.address, min(shape.size * count, OBJECT_MAX))
        except MemoryUnavailable:
            return
        for element in range(count):
            if self._followed >= POINTERS_FOLLOWED_MAX:
                return
            self._followed += len(shape.pointers) + len(shape.arrays)
            base = element * shape.size
            for index, pointer in enumerate(shape.pointers):
                at = base + pointer.offset
                alive = not pointer.conditions or has_member(pointer.conditions, raw, base)
                if at + 8 <= len(raw) and alive:
                    (value,) = struct.unpack_from("<Q", raw, at)
                    if value >= LOWEST:
                        self._follow(node, (element, index), value, pointer.type)
            for index, array in enumerate(shape.arrays):
                if array.conditions and not has_member(array.conditions, raw, base):
                    continue
                at, step = node.address + base + array.offset, (element, -1 - index)
                inner = _Node(at, array.element, array.count, node.root, node.depth + 1, step, node)
                self._add(inner)

    def _claim(self, node: _Node, step: Optional[Tuple[int, int]], value: int, target: int) -> None:
        """Note what a pointer reaches, unless a better one is known."""
        found = bisect_right(self._starts, value) - 1
        if found >= 0 and value < self._wanted[found][0] + self._wanted[found][1]:
            start, size = self._wanted[found]
            rank = self._rank(start, size, value, target)
            best = self._best.get(start)
            if best is None or rank < best.rank:
                self._best[start] = _Hit(rank, value, target, node, step)

    def _follow(self, node: _Node, step: Tuple[int, int], value: int, target: int) -> None:
        self._claim(node, step, value, target)
        if target < 0 or (value, target) in self._seen or target >= len(self._shapes):
            return
        shape = self._shapes[target]
        if not shape.pointers and not shape.arrays:
            return
        count = self._elements(value, shape) if shape.spreads else 1
        if count > 1 and shape.spreads == COUNTED:
            count = self._counted(node, step, value, shape.size, count)
        self._add(_Node(value, target, count, node.root, node.depth + 1, step, node))

    def _rank(self, start: int, size: int, value: int, target: int) -> int:
        """How well a pointer's type fits the block: 0 exactly, 4 not at all."""
        if not 0 <= target < len(self._shapes):
            return 3
        length = self._shapes[target].size
        if length <= 0 or value + length > start + size:
            return 4
        if value != start:
            return 2
        # malloc rounds up: request2size (malloc/malloc.c).
        return 0 if size <= max(24, (length + 23 & ~15) - 8) else 1

    def _elements(self, address: int, shape: TypeShape) -> int:
        """How many of them lie in a block that begins at `address`; 1 where none does."""
        if address % 16 or shape.size <= 0:
            return 1
        size = (self._view.word(address - 8) or 0) & ~7
        if not 32 <= size <= 1 << 32 or size % 16:
            return 1
        following = (self._view.word(address + size - 8) or 0) & ~7
        if following < 32 or following % 16:
            return 1
        return max(1, min((size - 8) // shape.size, ELEMENTS_MAX))

    def _counted(self, node: _Node, step: Tuple[int, int], value: int, size: int, most: int) -> int:
        """How many of `most` objects of `size` bytes behind the pointer `value` the object that it
        stands in tells of: by a pointer behind the last, or a member named as their number that is
        at least half of them (what grows by doubling is never emptier)."""
        shape = self._shapes[node.type]
        try:
            raw = self._view.read(node.address + step[0] * shape.size, min(shape.size, HOLDER_MAX))
        except MemoryUnavailable:
            return 1
        best = 1
        for offset in range(0, len(raw) - 7, 8):
            (word,) = struct.unpack_from("<Q", raw, offset)
            behind, rest = divmod(word - value, size)
            if not rest and 1 < behind <= most:
                best = max(best, behind)
        for offset, width in shape.numbers:
            number = int.from_bytes(raw[offset : offset + width], "little")
            if width in (1, 2, 4, 8) and 1 < number <= most <= 2 * number:
                best = max(best, number)
        return best

    def _count(self, hit: _Hit) -> int:
        """`_counted` of what leads to a block, as far as the block reaches."""
        index = bisect_right(self._starts, hit.value) - 1
        if hit.step is None or hit.target < 0 or index < 0:
            return 1
        start, length = self._wanted[index]
        size = self._shapes[hit.target].size
        most = (start + length - hit.value) // size if size > 0 else 1
        return self._counted(hit.node, hit.step, hit.value, size, most) if most > 1 else 1

    def _path(self, hit: _Hit) -> Path:
        node, steps = hit.node, []
        if node.depth >= STEPS_MAX:  # nor is it shown then what would tell of more than one
            return Path(-1, (), hit.value, hit.target, self._after, 1)
        if hit.step is not None:
            steps.append((node.address, *hit.step))
        while node.parent is not None:
            steps.append((node.parent.address, *node.step))
            node = node.parent
        path = tuple(reversed(steps))
        return Path(node.root, path, hit.value, hit.target, self._after, self._count(hit))
