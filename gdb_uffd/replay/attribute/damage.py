"""A chunk's header, or a link of a list, that cannot be: what is wrong with it."""

from __future__ import annotations

from typing import Optional, Tuple

from gdb_uffd.protocol.model import Damage, HeapBlock
from gdb_uffd.replay.attribute import malloc
from gdb_uffd.replay.views import View

HEADER = 16  # from a chunk's start to its block's
MIN_SIZE = 32  # MINSIZE
STEPS_MAX = 4096  # chunks between two places that are known


def at_header(view: View, at: int, limit: int, before: Optional[Tuple[int, int]]) -> Damage:
    """What is wrong with the size word of the chunk at `at`, in a heap that ends at `limit`;
    `before`: the chunk in front, as (start, size)."""
    block = HeapBlock(before[0] + HEADER, max(0, before[1] - 8), "unknown") if before else None
    word = view.word(at + 8)
    if word is None:
        return Damage("unreadable", at + HEADER, before=block)
    size = word & ~malloc.FLAGS
    what, expected = "size-mmapped", None
    if size % 16:
        what = "size-unaligned"
    elif size < MIN_SIZE:
        what = "size-small"
    elif size > limit - at:
        what, expected = "size-beyond", limit
    return Damage(what, at + HEADER, word, expected, before=block)


def chunk_before(view: View, anchor: int, at: int) -> Optional[Tuple[int, int]]:
    """The chunk that ends at `at`, as (start, size), found from a boundary below it; None."""
    for _ in range(STEPS_MAX if anchor else 0):
        size = (view.word(anchor + 8) or 0) & ~malloc.FLAGS
        if anchor + size == at and size:
            return anchor, size
        if size < HEADER or anchor + size > at:
            return None
        anchor += size
    return None


def at_link(view: View, entry: int, link: int, protected: bool, what: str = "") -> Damage:
    """Of a list of free blocks that leads from the chunk at `entry` (0: its head) to `link`, and
    cannot go on; `protected`: links stand in memory as PROTECT_PTR makes them, but the head.
    `what` is wrong, if that is known."""
    block = entry + HEADER if entry else 0
    if not what:
        known = view.word(link) is not None
        what = "link-unaligned" if link % 16 else "link-loop" if known else "link-unreadable"
    raw = view.word(block) if block and protected else None
    return Damage(what, block, link) if raw is None else Damage(what, block, raw, leads=link)
