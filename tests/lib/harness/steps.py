"""Random lists of accesses for tests/programs/steps.c, and what they must do to memory.

`World` is the model: pages of the areas that the lists touch, as bytes, and what each kind of
engine can see of a list.  It knows nothing of how an engine works beyond that.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

from gdb_uffd.replay.policy import syscalls

PAGE = 4096
END, READ, WRITE, CALL = range(4)
MMAP, MUNMAP, MREMAP, MADVISE, MPROTECT, GETCWD = (
    syscalls.by_name()[name].number
    for name in ("mmap", "munmap", "mremap", "madvise", "mprotect", "getcwd")
)
PROT_RW, PROT_R = 3, 1
MAP_PRIVATE_ANONYMOUS_FIXED = 0x02 | 0x20 | 0x10
MREMAP_MAYMOVE_FIXED = 1 | 2
MADV_DONTNEED = 4
MASK = (1 << 64) - 1

ARENA = 0x160000000000
"""Where the lists map memory of their own; nothing is there in the core."""
ARENA_PAGES = 16

Step = Tuple[int, ...]
STEP = struct.Struct("<7Q")


def encode(steps: List[Step]) -> bytes:
    """As `struct step` of steps.c, ended."""
    return b"".join(STEP.pack(*(*s, *[0] * (7 - len(s)))) for s in [*steps, (END,)])


@dataclass
class Cell:
    """A mapped page; `vma`: pages with the same number were mapped together.

    `recorded`: what the core has, b"" once the page is another.  `dirty`: it was written since,
    and `known`: an engine that compares has seen so.  `root`: where what was moved here was when
    the turn began, 0: it was not moved."""

    content: bytes
    vma: int
    writable: bool = True
    anonymous: bool = True  # can be mapped anew, dropped, moved
    recorded: bytes = b""
    dirty: bool = False
    known: bool = False
    root: int = 0


@dataclass
class Seen:
    """What a transaction did as an engine can tell: pages that the program wrote (`exact`), those
    of them whose bytes differed at some look (`visible`), and those that the debugger wrote."""

    exact: Set[int] = field(default_factory=set)
    visible: Set[int] = field(default_factory=set)
    debugger: Set[int] = field(default_factory=set)


class World:
    """The areas' pages as they are now.  Operations give the step to play, or None where they make
    no sense now."""

    def __init__(self, cells: Dict[int, Cell], cwd: str) -> None:
        self.cells = cells
        self.cwd = cwd
        self.sum = 1
        self.seen = Seen()
        self._next_vma = 1000
        self._looked: Dict[int, bytes] = {}  # as at the last look, where it differs from now

    def copy(self) -> "World":
        """An independent one, in the same state."""
        other = World({a: Cell(**vars(c)) for a, c in self.cells.items()}, self.cwd)
        other._next_vma = self._next_vma
        return other

    # -- looks --------------------------------------------------------------------------------

    def look(self) -> None:
        """The engine compares now."""
        for page, before in self._looked.items():
            if page in self.cells and self.cells[page].content != before:
                self.seen.visible.add(page)
                self.cells[page].known = True
        self._looked.clear()

    def _put(self, page: int, offset: int, data: bytes) -> None:
        cell = self.cells[page]
        self._looked.setdefault(page, cell.content)
        cell.content = cell.content[:offset] + data + cell.content[offset + len(data) :]
        cell.dirty = True
        self.seen.exact.add(page)

    def _lose(self, page: int) -> None:
        """A page goes, and what was recorded or written there since, by the program's doing."""
        cell = self.cells.get(page)
        if cell is None or not cell.recorded:
            return
        if any(cell.recorded) or cell.dirty:
            self.seen.exact.add(page)
        if any(cell.recorded) or cell.known:
            self.seen.visible.add(page)

    # -- accesses -----------------------------------------------------------------------------

    def read(self, page: int, offset: int) -> Optional[Step]:
        if page not in self.cells:
            return None
        self.sum = (self.sum * 31 + self.cells[page].content[offset]) & MASK
        return READ, 0, page + offset

    def write(self, page: int, offset: int, value: int) -> Optional[Step]:
        if page not in self.cells or not self.cells[page].writable:
            return None
        self._put(page, offset, bytes([value]))
        return WRITE, 0, page + offset, value

    def kernel_write(self, page: int, offset: int) -> Optional[Step]:
        """getcwd(2): the kernel writes, maybe across a border of pages."""
        data = os.fsencode(self.cwd) + b"\0"
        parts: List[Tuple[int, int, bytes]] = []
        while data:
            cell = self.cells.get(page)
            if cell is None or not cell.writable:
                return None
            here, data = data[: PAGE - offset], data[PAGE - offset :]
            parts.append((page, offset, here))
            page, offset = page + PAGE, 0
        for part in parts:
            self._put(*part)
        length = sum(len(here) for _, _, here in parts)
        self._answer(length)
        return CALL, GETCWD, parts[0][0] + parts[0][1], length

    def poke(self, page: int, offset: int, value: int) -> bool:
        """The debugger's own write, between two plays."""
        if page not in self.cells or not self.cells[page].writable:
            return False
        cell = self.cells[page]
        cell.content = cell.content[:offset] + bytes([value]) + cell.content[offset + 1 :]
        cell.dirty = cell.known = True
        self.seen.debugger.add(page)
        return True

    # -- layout -------------------------------------------------------------------------------

    def _answer(self, result: int) -> None:
        self.sum = (self.sum * 31 + result) & MASK

    def _all_anonymous(self, start: int, pages: int) -> bool:
        """Mapped or free, but nothing of a file."""
        inside = range(start, start + pages * PAGE, PAGE)
        return all(p not in self.cells or self.cells[p].anonymous for p in inside)

    def map(self, start: int, pages: int) -> Optional[Step]:
        if not self._all_anonymous(start, pages):
            return None
        self.look()
        self._next_vma += 1
        for page in range(start, start + pages * PAGE, PAGE):
            self._lose(page)
            self.cells[page] = Cell(bytes(PAGE), self._next_vma)
        self._answer(start)
        return CALL, MMAP, start, pages * PAGE, PROT_RW, MAP_PRIVATE_ANONYMOUS_FIXED, MASK

    def unmap(self, start: int, pages: int) -> Optional[Step]:
        if not self._all_anonymous(start, pages):
            return None
        self.look()
        for page in range(start, start + pages * PAGE, PAGE):
            self._lose(page)
            self.cells.pop(page, None)
        self._answer(0)
        return CALL, MUNMAP, start, pages * PAGE

    def move(self, start: int, pages: int, to: int, length: int) -> Optional[Step]:
        """mremap(2), which wants one mapping."""
        source = range(start, start + pages * PAGE, PAGE)
        cells = [self.cells.get(p) for p in source]
        if any(c is None or not c.anonymous or not c.writable for c in cells):
            return None
        if len({c.vma for c in cells if c is not None}) != 1 or not self._all_anonymous(to, length):
            return None
        if max(start, to) < min(start + pages * PAGE, to + length * PAGE):
            return None
        self.look()
        for page in source:
            self._lose(page)
        taken = [self.cells.pop(p) for p in source]
        self._next_vma += 1
        for i in range(length):
            page = to + i * PAGE
            self._lose(page)
            self.cells[page] = Cell(bytes(PAGE), self._next_vma)
            if i < pages:  # what moved counts as written there
                self.cells[page].content = taken[i].content
                self.cells[page].root = taken[i].root or source[i]
                self.seen.exact.add(page)
                self.seen.visible.add(page)
        self._answer(to)
        return CALL, MREMAP, start, pages * PAGE, length * PAGE, MREMAP_MAYMOVE_FIXED, to

    def drop(self, start: int, pages: int) -> Optional[Step]:
        inside = range(start, start + pages * PAGE, PAGE)
        if any(p not in self.cells or not self.cells[p].anonymous for p in inside):
            return None
        self.look()
        for page in inside:
            self._lose(page)
            cell = self.cells[page]
            cell.content, cell.recorded, cell.root = bytes(PAGE), b"", 0
        self._answer(0)
        return CALL, MADVISE, start, pages * PAGE, MADV_DONTNEED

    def protect(self, start: int, pages: int, writable: bool) -> Optional[Step]:
        inside = range(start, start + pages * PAGE, PAGE)
        if any(p not in self.cells or not self.cells[p].anonymous for p in inside):
            return None
        self._next_vma += 1
        for page in inside:
            self.cells[page].writable, self.cells[page].vma = writable, self._next_vma
        self._answer(0)
        return CALL, MPROTECT, start, pages * PAGE, PROT_RW if writable else PROT_R
