"""Blocks with mappings of their own: each header is looked at once."""

from __future__ import annotations

from typing import Dict, Optional

from gdb_uffd.replay.attribute.malloc import HEADERS_MAX, MMAPPED, MappedChunks

PAGE = 4096


class Memory:
    """Words that are there; the rest is zero.  Counts what is read."""

    def __init__(self, words: Dict[int, int]) -> None:
        self.words = words
        self.reads = 0

    def word(self, address: int) -> Optional[int]:
        self.reads += 1
        return self.words.get(address, 0)


def test_blocks_in_a_row() -> None:
    low = 0x10000 * PAGE
    sizes = [3 * PAGE, 2 * PAGE, 5 * PAGE]
    words, at = {}, low
    for size in sizes:
        words[at + 8] = size | MMAPPED
        at += size
    chunks = MappedChunks(Memory(words))  # type: ignore[arg-type]
    found = [chunks.find(page, low, low + 20 * PAGE) for page in range(low, at + PAGE, PAGE)]
    expected = [
        (low + sum(sizes[:i]), size) for i, size in enumerate(sizes) for _ in range(size // PAGE)
    ]
    assert found == [*expected, None]


def test_a_block_behind_something_else() -> None:
    low = 0x10000 * PAGE
    start = low + 7 * PAGE
    chunks = MappedChunks(Memory({start + 8: 4 * PAGE | MMAPPED}))  # type: ignore[arg-type]
    pages = [chunks.find(low + i * PAGE, low, low + 30 * PAGE) for i in range(3, 14)]
    assert pages == [None] * 4 + [(start, 4 * PAGE)] * 4 + [None] * 3


def test_pages_of_no_block_cost_a_look_each() -> None:
    low, count = 0x10000 * PAGE, 100_000
    memory = Memory({})
    chunks = MappedChunks(memory)  # type: ignore[arg-type]
    for i in range(count):
        assert chunks.find(low + i * PAGE, low, low + count * PAGE) is None
    assert memory.reads <= 2 * (HEADERS_MAX + 1)
