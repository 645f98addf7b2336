"""Words that malloc wrote into a block before it handed it out, and nobody since."""

from __future__ import annotations

from typing import Collection, Iterator, Sequence, Tuple

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay.attribute import malloc
from gdb_uffd.replay.views import View

ARENA_BYTES = max(malloc.STATE_SIZES)
"""Of a struct malloc_state: the links of its bins' ends lead into it."""

LINK, KEY = 16, 24  # from a chunk's start: tcache_entry's `next` and `key`


def words(
    before: View,
    after: View,
    chunk: int,
    at: int,
    end: int,
    cached: bool,
    arenas: Collection[int],
    heaps: Sequence[Tuple[int, int]],
) -> Iterator[int]:
    """Those of the chunk at `chunk`, in use now, from the one that holds `at` up to `end`, that
    changed: the key of a thread's cache, which malloc clears as it hands out a block that was
    `cached` (tcache_get), links into one of the `arenas` (of a bin that it went through), and a
    protected link of a cache or a fastbin into one of the `heaps` (PROTECT_PTR, since 2.32; none
    where links are not protected: they look like the program's)."""
    low = at & -8
    try:
        olds, news = (view.read(low, end - low) for view in (before, after))
    except MemoryUnavailable:
        return
    for skip in range(0, end - low & -8, 8):
        if olds[skip : skip + 8] == news[skip : skip + 8]:
            continue
        word, now = low + skip, int.from_bytes(news[skip : skip + 8], "little")
        key = cached and word == chunk + KEY and not now
        if (
            key
            or any(arena < now < arena + ARENA_BYTES for arena in arenas)
            or (heaps and word == chunk + LINK and _is_entry(word, now, heaps))
        ):
            yield word


def _is_entry(at: int, link: int, heaps: Sequence[Tuple[int, int]]) -> bool:
    to = link ^ at >> 12
    return not to or (to % 16 == 0 and any(low <= to < high for low, high in heaps))
