"""Which pages of a sparse file are told to be zeros."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.replay import holes
from gdb_uffd.trace.source import FILE, ZERO, Segment

MIB = 1 << 20
AT = 0x7F0000000000


@pytest.fixture
def sparse(tmp_path: Path) -> Any:
    """4 MiB of which the first and the third begin with 64 KiB of data."""
    path = tmp_path / "core"
    with open(path, "w+b") as file:
        os.truncate(path, 4 * MIB)
        for at in (0, 2 * MIB):
            os.pwrite(file.fileno(), b"x" * 65536, at)
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) != 65536:
            pytest.skip("this file system has no holes")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    yield data


def told(data: Any, *segments: Segment, lowest: int = 0) -> List[Tuple[int, int]]:
    def address(data: Any) -> int:
        view = ctypes.c_char.from_buffer(data)
        return ctypes.addressof(view)

    return holes.ranges(segments, address, lowest)


def whole(data: Any) -> Segment:
    return Segment(AT, AT + 4 * MIB, 3, FILE, data, 0, 4 * MIB)


def test_pages_of_a_hole_between_data(sparse):
    """Behind the last data nothing tells where the hole ends."""
    assert told(sparse, whole(sparse)) == [(AT + 65536, AT + 2 * MIB)]


@pytest.mark.parametrize(
    ("offset", "end", "hole"),
    [
        (MIB, 4 * MIB, (0, MIB)),
        (100, 4 * MIB, (65536, 2 * MIB - PAGE_SIZE)),  # whole pages, counted from there
        (0, MIB + MIB // 2, (65536, MIB + MIB // 2)),
        (0, 65536 * 2, (65536, 65536 * 2)),
    ],
)
def test_the_part_that_a_segment_has(sparse, offset, end, hole):
    segment = replace(whole(sparse), offset=offset, data_end=end)
    assert told(sparse, segment) == [(AT + hole[0], AT + hole[1])]


@pytest.mark.parametrize(
    "change",
    [
        {"patch": b"another content"},
        {"kind": ZERO},
        {"end": AT + MIB - PAGE_SIZE},
        {"data_end": 65536 * 2 - PAGE_SIZE},  # too small a hole
        {"start": AT - PAGE_SIZE, "end": AT + 4 * MIB - PAGE_SIZE},  # too low
    ],
)
def test_what_is_not_told(sparse, change):
    assert told(sparse, replace(whole(sparse), **change), lowest=AT) == []


def test_each_of_several_segments_up_to_a_limit(sparse, monkeypatch):
    segments = [
        replace(whole(sparse), start=AT + n * 8 * MIB, end=AT + n * 8 * MIB + 4 * MIB)
        for n in range(5)
    ]
    every = [(s.start + 65536, s.start + 2 * MIB) for s in segments]
    assert told(sparse, *segments) == every
    monkeypatch.setattr(holes, "MOST", 3)
    assert told(sparse, *segments) == every[:3]
