"""Threads as bytes between gdb's side and the recorder."""

from __future__ import annotations

import pytest

from gdb_uffd.recorder.wire import RawThread, WireError, pack_thread, unpack_threads

THREADS = [
    RawThread(11, bytes(range(216)), b"x" * 832, 11, 1 << 63 | 5, b"s" * 128, b"worker"),
    RawThread(12, bytes(216), b"", 0, 0, b"", b""),
]


def test_what_is_packed_is_what_is_unpacked():
    assert list(unpack_threads(b"".join(map(pack_thread, THREADS)))) == THREADS
    assert list(unpack_threads(b"")) == []


@pytest.mark.parametrize("number", [0, 1])
def test_threads_that_are_cut_short_anywhere(number):
    whole = pack_thread(THREADS[0]) * number
    last = pack_thread(THREADS[number])
    for length in range(1, len(last)):
        with pytest.raises(WireError):
            list(unpack_threads(whole + last[:length]))
