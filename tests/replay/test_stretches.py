"""The changed bytes of a page as a report carries them: which, joined, and how many at most."""

from __future__ import annotations

from typing import List, Tuple

import pytest
from harness.calls import Caller

from gdb_uffd.protocol.model import PAGE_SIZE, DirtyPage

Stretch = Tuple[int, int]
"""From where in the page, and how many bytes."""


@pytest.fixture
def caller(all_cores):
    made = Caller(all_cores.writes())
    yield made
    made.close()


def first_page(caller: Caller) -> int:
    """The first whole page of `large`, zeros."""
    return caller.symbol("large") + PAGE_SIZE - 1 & -PAGE_SIZE


def written(caller: Caller, stretches: List[Stretch], pages: int = 1) -> List[DirtyPage]:
    """What is told when these bytes of each page are assigned."""
    d = caller.diversion
    d.begin()
    for index in range(pages):
        for offset, length in stretches:
            d.write_memory(first_page(caller) + index * PAGE_SIZE + offset, b"\x5a" * length)
    return d.end(False).pages


@pytest.mark.parametrize(
    ("assigned", "told"),
    [
        ([(0, 1), (100, 2), (4095, 1)], [(0, 1), (100, 2), (4095, 1)]),
        ([(10, 1), (18, 1)], [(10, 9)]),  # seven equal bytes between
        ([(10, 1), (19, 1)], [(10, 1), (19, 1)]),
        ([(10, 1), (15, 2), (24, 3), (35, 1)], [(10, 17), (35, 1)]),
        ([(0, 256)], [(0, 256)]),
        ([(0, 257)], [(0, 257)]),
        ([(0, PAGE_SIZE)], [(0, PAGE_SIZE)]),
        ([(16 * n, 1) for n in range(64)], [(16 * n, 1) for n in range(64)]),
        ([(16 * n, 1) for n in range(65)], [(16 * n, 1) for n in range(65)]),
        ([(9 * n, 1) for n in range(456)], [(9 * n, 1) for n in range(456)]),
    ],
)
def test_each_changed_byte_is_told_once(caller, assigned, told):
    (page,) = written(caller, assigned)
    start = first_page(caller)
    assert page.start == start and page.bytes_changed == sum(length for _, length in assigned)
    assert [(run.address - start, len(run.before)) for run in page.ranges] == told
    assert not page.more_ranges
    after = bytearray(PAGE_SIZE)
    for offset, length in assigned:
        after[offset : offset + length] = b"\x5a" * length
    for run in page.ranges:
        assert run.before == bytes(len(run.before))
        assert run.after == after[run.address - start :][: len(run.after)]


@pytest.mark.parametrize(
    ("assigned", "whole", "cut"),
    [
        ([(0, PAGE_SIZE)], [(0, PAGE_SIZE)], [(0, 256)]),
        ([(0, 100), (200, 3000)], [(0, 100), (200, 3000)], [(0, 100), (200, 256)]),
        ([(32 * n, 8) for n in range(128)], [(32 * n, 8) for n in range(128)],
         [(32 * n, 8) for n in range(64)]),
        ([(0, 256)], [(0, 256)], [(0, 256)]),
    ],
)  # fmt: skip
def test_a_report_has_room_for_so_much_beyond_each_page_s_limits(caller, assigned, whole, cut):
    """128 KiB; what a page has not is counted."""
    pages = written(caller, assigned, 38)
    assert len(pages) == 38
    each = sum(length for _, length in assigned)
    room = 38 if whole == cut else -(-(1 << 17) // each)
    for index, page in enumerate(sorted(pages, key=lambda page: page.start)):
        wanted = whole if index < room else cut
        assert [(run.address - page.start, len(run.before)) for run in page.ranges] == wanted, index
        assert page.more_ranges == (index >= room) and page.bytes_changed == each
