"""What is told of malloc's heap, as data that both sides share (docs/json.md, `uffd heap`), and how
its blocks are reached (docs/protocol.md, quffd.reach).

A block is what malloc() gave: its `start` is the pointer, its `size` what may be used of it.  The
chunk that it lies in begins 16 bytes earlier (glibc's malloc/malloc.c, "Chunk representations").
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type, TypeVar, Union

from gdb_uffd.protocol.model import Address, Damage, FreeList, HeapBlock

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
    thread-local's in its ELF file, "+0x8" behind it; `block`: the one that the word lies in, where
    it is a heap's."""

    address: Address
    value: Address
    kind: str
    mapping: str = ""
    tid: int = 0
    name: str = ""
    block: Optional[HeapBlock] = None


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


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass of this module (or a list of them) as plain JSON types: addresses as hex strings,
    as their types say."""
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    out: Dict[str, Any] = {}
    for name, hint in _hints(type(value)).items():
        out[name] = _encoded(hint, getattr(value, name))
    return out


def from_json(kind: Type[T], data: Any) -> T:
    """The dataclass that `to_json` wrote; KeyError, TypeError or ValueError when it is none."""
    return kind(**{name: _decoded(hint, data[name]) for name, hint in _hints(kind).items()})


_known: Dict[Any, Dict[str, Any]] = {}


def _hints(kind: Any) -> Dict[str, Any]:
    """A dataclass's fields with their types, looked up once."""
    if kind not in _known:
        _known[kind] = typing.get_type_hints(kind, include_extras=True)
    return _known[kind]


def _inner(hint: Any) -> Any:
    """What a List[...] or an Optional[...] is of."""
    return next(arg for arg in typing.get_args(hint) if arg is not type(None))


def _encoded(hint: Any, value: Any) -> Any:
    if hint == Address:
        return hex(value)
    origin = typing.get_origin(hint)
    if origin is list:
        return [_encoded(_inner(hint), item) for item in value]
    if origin is Union:
        return None if value is None else _encoded(_inner(hint), value)
    return to_json(value)


def _decoded(hint: Any, data: Any) -> Any:
    if hint == Address:
        return int(data, 16)
    origin = typing.get_origin(hint)
    if origin is list:
        return [_decoded(_inner(hint), item) for item in data]
    if origin is Union:
        return None if data is None else _decoded(_inner(hint), data)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(Any, hint), data)
    if not isinstance(data, hint):
        raise TypeError(f"{data!r} is no {hint.__name__}")
    return data
