"""The buffers between the process that stands still and the trace."""

from __future__ import annotations

import mmap
import struct
import threading

import pytest

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.recorder import capture
from gdb_uffd.recorder.capture import Chunk, Pool

LOW, HOLE, HIGH = 0x400000, 0x500000, 0x7F0000000000


@pytest.fixture
def chunk():
    """Two pages, three that could not be read, two more; each page is full of its number."""
    memory = mmap.mmap(-1, 4 * PAGE_SIZE)
    for number in range(4):
        memory[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = bytes([number]) * PAGE_SIZE
    pieces = [(LOW, 2, 1), (HOLE, 3, 0), (HIGH, 2, 1)]
    raw = b"".join(
        struct.pack("<QQQ", start, start + count * PAGE_SIZE, read) for start, count, read in pieces
    )
    return Chunk(memory, raw)


def test_a_page_is_found_behind_what_could_not_be_read(chunk):
    pages = [LOW, LOW + PAGE_SIZE, HIGH, HIGH + PAGE_SIZE]
    assert [chunk.page(at) for at in pages] == [bytes([n]) * PAGE_SIZE for n in range(4)]


@pytest.mark.parametrize(
    "at",
    [0, LOW - PAGE_SIZE, LOW + 2 * PAGE_SIZE, HOLE, HOLE + 2 * PAGE_SIZE, HIGH + 2 * PAGE_SIZE],
)
def test_no_page_is_found_beside_them(chunk, at):
    with pytest.raises(KeyError):
        chunk.page(at)


def test_no_more_buffers_are_made_than_fit(monkeypatch):
    """Who asks for another one waits until one is given back; what was in it is forgotten."""
    monkeypatch.setattr(capture, "available_bytes", lambda: 0)
    monkeypatch.setattr(capture, "KEPT_CHUNKS", 6)
    pool = Pool()
    taken = []
    while pool.ready():
        taken.append(pool.get())
    assert len({id(chunk) for chunk in taken}) == len(taken) == 6
    waiting = threading.Thread(target=lambda: taken.append(pool.get()), daemon=True)
    waiting.start()
    taken[2].raw = b"x" * 24
    pool.give_back(taken[2])
    waiting.join(20)
    assert taken[6] is taken[2] and taken[6].raw == b"" and not pool.ready()


def test_what_is_more_than_is_kept_is_given_back_to_the_machine(monkeypatch):
    monkeypatch.setattr(capture, "KEPT_CHUNKS", 6)
    monkeypatch.setattr(
        capture, "available_bytes", lambda: 8 * capture.MEMORY_SHARE * capture.CHUNK_BYTES
    )
    pool = Pool()
    taken = []
    while pool.ready():
        taken.append(pool.get())
    assert len(taken) == 8
    for chunk in taken:
        pool.give_back(chunk)
    assert [chunk.memory.closed for chunk in taken] == [True] * 2 + [False] * 6
    assert [pool.get() for _ in range(6)] and pool.ready()
