"""What a pointer's type tells of the bytes behind it, beyond the object that it points to."""

from __future__ import annotations

from typing import List, Optional, Tuple

import gdb

from gdb_uffd.client.names import type_facts
from gdb_uffd.client.names.block_paths import FoundBlock
from gdb_uffd.client.names.expression import Expression
from gdb_uffd.client.names.shapes import ALWAYS, is_open_ended
from gdb_uffd.protocol.model import DirtyRange


def tail(
    found: FoundBlock, about: type_facts.TypeInfo, changed: List[int]
) -> Optional[Tuple[Expression, gdb.Type, int]]:
    """The flexible array at the end of a structure, as long as it must be."""
    if not is_open_ended(about):
        return None
    last = about.fields[-1]
    element = type_facts.info(last.type).plain.target()
    start = found.address + last.offset
    if element.sizeof <= 0 or changed[0] < start:
        return None
    count = (changed[-1] - start) // element.sizeof + 1
    place = found.place.member(last.name)
    return place, element.array(count - 1), start


def reaches(found: FoundBlock, run: DirtyRange) -> bool:
    """Whether all changed bytes of a run are of the objects that a pointer into its mapping means:
    the one there, or the array that the mapping begins with."""
    size = found.type.sizeof if found.type is not None else 0
    first, last = run.address, run.address + len(run.before)
    whole = found.spreads == ALWAYS and found.address == found.block.start
    return size > 0 and found.address <= first and (whole or last <= found.address + size)


def offset_to_top(address: int) -> int:
    """From a base class's part to the whole object: a word of its virtual table (Itanium C++ ABI,
    2.5.2)."""
    word = gdb.lookup_type("long")
    table = int(gdb.Value(address).cast(word.pointer()).dereference())
    return int(gdb.Value(table - 16).cast(word.pointer()).dereference())
