"""What is told of malloc's heap, as data that both sides share (docs/json.md, `uffd heap`), and how
its blocks are reached (docs/protocol.md, quffd.reach).

A block is what malloc() gave: its `start` is the pointer, its `size` what may be used of it.  The
chunk that it lies in begins 16 bytes earlier (glibc's malloc/malloc.c, "Chunk representations").
"""

from __future__ import annotations

from dataclasses import field
from typing import List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.fields import Address
from gdb_uffd.protocol.model import Damage, FreeList, HeapBlock

HEADER = 16
"""Bytes from a chunk's start to its block's."""


Condition = Tuple[int, int, int]
"""(offset, size, value): the little-endian number in an object that must be that."""


def has_member(conditions: Sequence[Condition], raw: bytes, base: int = 0) -> bool:
    """Whether the object whose bytes begin at `base` in `raw` has a member now, of which these must
    hold; so where what they are about is not there."""
    return all(
        int.from_bytes(raw[base + at : base + at + size], "little") == value
        for at, size, value in conditions
        if at >= 0 and base + at + size <= len(raw)
    )


@dataclass(frozen=True)
class HeapRange:
    """Memory of one arena that holds chunks, half-open; `unread`: bytes of it behind damage that
    nothing is known of."""

    start: Address
    end: Address
    unread: int = 0


@dataclass(frozen=True)
class Arena:
    """`address` of its struct malloc_state; `tids`: threads that allocate from it, as far as is
    known.  `used`, `free`: blocks and bytes of the chunks; blocks in threads' caches count as free,
    the top does not.  `top`: its chunk's start and size, 0 for none.  `system_bytes`: what it says
    it got from the kernel."""

    address: Address
    main: bool
    ranges: List[HeapRange]
    used: int = 0
    used_bytes: int = 0
    free: int = 0
    free_bytes: int = 0
    top: Address = 0
    top_bytes: int = 0
    system_bytes: int = 0
    tids: List[int] = field(default_factory=list)


@dataclass(frozen=True)
class Allocator:
    """Whose malloc it is: `name` "glibc", "musl", "jemalloc", "tcmalloc", "mimalloc", or "" for one
    that is not known; `file` holds it; `version` where the file says it.  `mappings`: how many
    anonymous ones there are that no stack or thread-local takes, and their bytes."""

    name: str
    file: str
    version: str = ""
    mappings: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class HeapReport:
    """All of it.  `mapped`: blocks with mappings of their own, as found, and their bytes;
    `mapped_said` as malloc counts them itself, -1 where its counters were not found.
    `damage_count`: how many there are in all, of which `damage` has the first.  `caches_missing`:
    threads of which no cache was found.  `blocks`: where they were asked for, of all heaps, by
    address; `more_blocks` there are behind them."""

    allocator: Allocator
    arenas: List[Arena]
    lists: List[FreeList]
    mapped: int = 0
    mapped_bytes: int = 0
    mapped_said: int = -1
    mapped_said_bytes: int = -1
    damage: List[Damage] = field(default_factory=list)
    damage_count: int = 0
    caches_missing: List[int] = field(default_factory=list)
    blocks: List[HeapBlock] = field(default_factory=list)
    more_blocks: int = 0


@dataclass(frozen=True)
class Reference:
    """A word that points into a block.  `address` of the word, `value` it holds; `kind` as of a
    DirtyPage, or "register"; `tid` for tls, stack and register; `name`: the register's, or the
    thread-local's in its ELF file, which begins at `start`; `block`: the one that the word lies in,
    where it is a heap's."""

    address: Address
    value: Address
    kind: str
    mapping: str = ""
    tid: int = 0
    name: str = ""
    block: Optional[HeapBlock] = None
    start: Address = 0


@dataclass(frozen=True)
class BlockReport:
    """What is told of the block around `address`.  `block` None: no block holds it.  `arena`: its
    arena's address, 0 for one with a mapping of its own.  `chain`: from a root, word by word, to
    the block (`chain_before`, `chain_after`: to its neighbours); `references`: all words that point
    into it; `freed`: words inside of it that point into freed blocks, whose `block` is that one.
    `complete`: all memory was searched."""

    address: Address
    block: Optional[HeapBlock] = None
    arena: Address = 0
    before: Optional[HeapBlock] = None
    after: Optional[HeapBlock] = None
    chain: List[Reference] = field(default_factory=list)
    chain_before: List[Reference] = field(default_factory=list)
    chain_after: List[Reference] = field(default_factory=list)
    references: List[Reference] = field(default_factory=list)
    more_references: int = 0
    freed: List[Reference] = field(default_factory=list)
    damage: List[Damage] = field(default_factory=list)
    complete: bool = True
    allocator: Optional[Allocator] = None
    kind: str = ""  # of the address: as of a DirtyPage
    mapping: str = ""
    is_mapped: bool = True
