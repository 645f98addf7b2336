"""The requests of `uffd heap`; what is told is in heap.py."""

from __future__ import annotations

from typing import Annotated, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.fields import Address, AtMost, Within
from gdb_uffd.protocol.heap import BlockReport, HeapReport
from gdb_uffd.protocol.messages import Request
from gdb_uffd.protocol.model import FLAWS

BLOCKS_MAX = 100_000
"""Blocks that one answer lists."""


@dataclass(frozen=True)
class Heap(Request[HeapReport], name="heap"):
    """All of malloc's heap as it is now, with its first `blocks` blocks, with `free` the free ones
    alone."""

    blocks: Annotated[int, Within(0, BLOCKS_MAX)] = 0
    free: bool = False


@dataclass(frozen=True)
class HeapBlockAt(Request[BlockReport], name="heap-block"):
    """The block around an address, its neighbours, and the words that point to them."""

    address: Address


@dataclass(frozen=True)
class HeapSince:
    """The two snapshots between which the heap got a flaw; `whole` null: the first has it; `broken`
    null: the present one has none.  Not `exact`: time ran out."""

    whole: Optional[int]
    broken: Optional[int]
    exact: bool


@dataclass(frozen=True)
class AskHeapSince(Request[HeapSince], name="heap-since"):
    """Since when the heap has one of these, which are of `model.FLAWS`."""

    flaws: Annotated[List[str], AtMost(len(FLAWS))]
