"""Sizes of glibc's bins, by its own formula."""

from __future__ import annotations

import pytest

from gdb_uffd.replay.attribute.layouts import large_bin


def index(size: int) -> int:
    """largebin_index_64 (malloc.c)."""
    for shift, most, base in ((6, 48, 48), (9, 20, 91), (12, 10, 110), (15, 4, 119), (18, 2, 124)):
        if size >> shift <= most:
            return base + (size >> shift)
    return 126


@pytest.mark.parametrize("number", range(64, 127))
def test_each_large_bin_holds_what_malloc_puts_there(number: int) -> None:
    low, high = large_bin(number)
    assert index(low) == number
    if number > 64:
        assert index(low - 16) == number - 1
    if high:
        assert index(high - 16) == number and index(high) == number + 1
    else:
        assert number == 126
