"""Blocks of malloc's heap, and words that point into them, in the program's words."""

from __future__ import annotations

import contextlib
from dataclasses import field
from typing import Dict, List, Optional, Sequence, Tuple

import gdb

from gdb_uffd.client.names import addresses, alternatives, frame_locals, type_facts
from gdb_uffd.client.names.block_paths import FoundBlock, Paths, Root, element_of
from gdb_uffd.client.names.expression import Expression, variable
from gdb_uffd.client.names.scalars import Walk
from gdb_uffd.client.names.shapes import Shapes
from gdb_uffd.client.names.tls import CONTROL_NAME, ThreadLocals
from gdb_uffd.client.names.variables import Variable, no_calls
from gdb_uffd.client.session.asking import FAILURES, captured, selected_arch
from gdb_uffd.client.session.code import code_address, frames
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.threads import in_thread
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.heap import Reference
from gdb_uffd.protocol.model import Block, DirtyRange, HeapBlock, UffdError

DEAD = "(holds it no more)"
"""Behind the name of a word that an empty std::optional, or another alternative, left there."""

FRAMES = 16
"""Frames whose source files tell the static variables of functions."""


@dataclass(frozen=True)
class Named:
    """A block: `text` is a pointer to it or into it, as the program writes it, "" where none is
    known; `whose` what else tells where that is ("of #1 main ()", "of thread 2"); `type` what it
    seems to hold, "char [24]"."""

    text: str = ""
    whose: str = ""
    type: str = ""

    def full(self) -> str:
        """The name with its place."""
        return f"{self.text} {self.whose}".strip()


@dataclass
class HeapNames:
    """Looks names up in memory as it is now."""

    session: Session
    _roots: Dict[int, Tuple[Optional[Root], str, str]] = field(default_factory=dict)
    _found: Dict[int, Tuple[FoundBlock, str]] = field(default_factory=dict)

    def of(self, block: HeapBlock, chain: Sequence[Reference]) -> Named:
        """The name of a block to which `chain` leads from a root."""
        with no_calls():
            return captured(lambda: self._of(block, chain))

    def _of(self, block: HeapBlock, chain: Sequence[Reference]) -> Named:
        if not chain:
            return Named()
        root, text, whose = self._root(chain[0])
        if root is not None:
            self._search(root, whose, [block, *(ref.block for ref in chain[1:])])
        known = self._found.get(block.start)
        if known is not None:
            return self._named(block, *known)
        return Named(self._untyped(chain, text), whose)

    def _untyped(self, chain: Sequence[Reference], text: str) -> str:
        """The way by hand, where types do not lead: from the last block that has a name."""
        for index in range(len(chain) - 1, 0, -1):
            ref = chain[index]
            known = self._found.get(ref.block.start) if ref.block is not None else None
            if known is not None:
                word = self.inside(known[0], ref.address)
                return " -> ".join([word, *(_offset(each) for each in chain[index + 1 :])])
        return " -> ".join([text, *(_offset(each) for each in chain[1:])])

    def _search(self, root: Root, whose: str, blocks: Sequence[Optional[HeapBlock]]) -> None:
        wanted = [
            Block(b.start, b.size, "live")
            for b in blocks
            if b is not None and b.start not in self._found
        ]
        paths = Paths(self.session, True, self.session.kept(Shapes))
        with contextlib.suppress(UffdError):
            paths.search([root], wanted, True)
        for start, found in paths.found.items():
            self._found[start] = found, whose

    def _named(self, block: HeapBlock, found: FoundBlock, whose: str) -> Named:
        place = found.place
        text = place.text if place.pointer else f"&{place.text}"
        type_ = ""
        if found.type is not None:
            size = type_facts.info(found.type).size
            count = block.size // size if size and found.spreads else 1
            type_ = str(found.type.unqualified())
            if found.address != block.start:
                type_ += f" at +{found.address - block.start:#x}"
            elif count > 1:
                type_ += f" [{count}]"
        return Named(text, whose, type_)

    # -- words ----------------------------------------------------------------------------------

    def word(self, ref: Reference) -> Named:
        """The variable, or the member of a block, that a pointer stands in."""
        with no_calls():
            return captured(lambda: self._word(ref))

    def _word(self, ref: Reference) -> Named:
        if ref.block is not None and ref.kind == "heap":
            known = self._found.get(ref.block.start)
            if known is not None:
                return Named(self.inside(known[0], ref.address), known[1])
            return Named(f"block {ref.block.start:#x}+{ref.address - ref.block.start:#x}")
        _, text, whose = self._root(ref)
        return Named(text, whose)

    def inside(self, found: FoundBlock, address: int) -> str:
        """The member of a named block at an address."""
        if found.type is None:
            return f"{found.place.text}{address - found.address:+#x}"
        about = type_facts.info(found.type)
        index = (address - found.address) // about.size if about.size else 0
        fits = index == 0 or found.spreads
        if index < 0 or not fits:
            return f"{found.place.text}{address - found.address:+#x}"
        place = element_of(found.place, index, found.vector)
        start = found.address + index * about.size
        held = alternatives.member_at(place, found.type, start, address)
        text = leaf(held.place, held.type, held.start, address)
        return f"{text} {DEAD}" if held.dead else text

    # -- roots ----------------------------------------------------------------------------------

    def _root(self, ref: Reference) -> Tuple[Optional[Root], str, str]:
        """(the variable, the pointer in it as text, where it is) of a word outside of the heap."""
        key = ref.address or hash((ref.tid, ref.name))
        if key not in self._roots:
            self._roots[key] = self._look_up(ref)
        return self._roots[key]

    def _look_up(self, ref: Reference) -> Tuple[Optional[Root], str, str]:
        thread = self.session.position.thread_numbers.get(ref.tid)
        whose = f"of thread {thread}" if thread is not None else ""
        if ref.kind == "register":
            return None, f"${ref.name}", whose
        if ref.kind == "stack":
            return self._local(ref, whose)
        if ref.kind == "tls":
            run = DirtyRange(ref.address, b"", b"", symbol=ref.name, symbol_start=ref.start)
            known = ThreadLocals(self.session).find(run, ref.tid, None)
        else:
            known, whose = addresses.variable(ref.address, frame_pcs()), ""
        if known is None or known.type is None:
            return None, _untyped_word(known, ref), whose
        place = variable(known.name)
        held = alternatives.member_at(place, known.type, known.address, ref.address)
        text = leaf(held.place, held.type, held.start, ref.address)
        whose = f"{whose} {DEAD}".strip() if held.dead else whose
        return Root(place, known.type, known.address), text, whose

    def _local(self, ref: Reference, whose: str) -> Tuple[Optional[Root], str, str]:
        with in_thread(ref.tid):
            found = frame_locals.locals_at([ref.address])
        if not found:
            return None, _word_at(ref.address), f"on the stack {whose}".strip()
        local = found[0]
        several = len(self.session.position.thread_numbers) > 1
        place = f"of #{local.level} {local.function} ()" + (f" {whose}" if several else "")
        if local.type is None:
            return None, local.name, place
        name = variable(local.name)
        held = alternatives.member_at(name, local.type, local.address, ref.address)
        text = leaf(held.place, held.type, held.start, ref.address)
        place = f"{place} {DEAD}" if held.dead else place
        return Root(name, local.type, local.address), text, place


def _word_at(address: int) -> str:
    """A pointer where nothing has a name, as gdb reads it."""
    return f"*(void **) {address:#x}"


def _untyped_word(known: Optional[Variable], ref: Reference) -> str:
    if known is None:
        return _word_at(ref.address)
    dtv = known.address + selected_arch().dtv_offset
    if known.name == CONTROL_NAME and ref.address == dtv:
        return f"{CONTROL_NAME}'s dtv"
    return known.at(ref.address)


def _offset(ref: Reference) -> str:
    return f"+{ref.address - ref.block.start:#x}" if ref.block is not None else hex(ref.address)


def leaf(place: Expression, type_: gdb.Type, start: int, address: int) -> str:
    """The innermost member of an object at `start` that holds `address`."""
    with contextlib.suppress(*FAILURES):
        walk = Walk([address], lambda at, length, after: None, printers=False)
        for each in walk.leaves(place, type_, start):
            return each.place.text
    return place.text


def frame_pcs() -> List[int]:
    """Where the selected thread's frames stand."""
    return [code_address(frame) for frame in frames(FRAMES, dummies=True)]
