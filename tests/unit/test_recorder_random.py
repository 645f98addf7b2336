"""Random programs: whatever they do to their memory, each snapshot is what the process held."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict, List, Set, Tuple

import pytest
from harness import tracing
from harness.tracing import Puppet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gdb_uffd import trace
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable
from gdb_uffd.replay.trackers import kernel

PAGES, FILE_PAGES = 8, 32
MADV_DONTNEED, MADV_FREE = 4, 8
PRIVATE, SHARED, FIXED = 0x22, 0x21, 0x10  # with MAP_ANONYMOUS

places = st.tuples(st.integers(0, 3), st.integers(0, PAGES - 1), st.integers(1, PAGES))
"""(which region, first page, pages); reduced to what there is."""

steps = st.one_of(
    st.tuples(st.just("fill"), places, st.integers(0, 255)),
    st.tuples(st.just("fill-bytes"), places, st.integers(0, 255)),
    st.tuples(st.just("read"), places, st.just(0)),
    st.tuples(st.just("drop"), places, st.sampled_from([MADV_DONTNEED, MADV_FREE])),
    st.tuples(st.just("protect"), places, st.sampled_from([0, 1, 3])),
    st.tuples(st.just("unmap"), places, st.just(0)),
    st.tuples(st.just("remap-same-place"), places, st.sampled_from([PRIVATE, SHARED])),
    st.tuples(st.just("new"), places, st.sampled_from([PRIVATE, SHARED])),
    st.tuples(st.just("file"), places, st.sampled_from([1, 2])),
    st.tuples(st.just("move"), places, st.integers(1, 2)),
    st.tuples(st.just("fork"), places, st.just(0)),
    st.tuples(st.just("brk"), places, st.sampled_from([8, 3, -2])),
    st.tuples(st.just("stack"), places, st.integers(0, 255)),
    st.tuples(st.just("data"), places, st.integers(0, 255)),
    st.tuples(st.just("nothing"), places, st.just(0)),
)
stretches = st.lists(st.lists(steps, min_size=1, max_size=4), min_size=4, max_size=8)


class Life:
    """A puppet with regions that the test knows of: [start, end), still mapped or not."""

    def __init__(self, puppet: Puppet, file: int) -> None:
        self.puppet, self.file = puppet, file
        puppet.thaw()
        self.regions: List[Tuple[int, int]] = [self.new(PRIVATE), self.new(PRIVATE)]
        self.shared: Set[int] = set()  # indexes of those with anonymous memory that is shared
        for start, end in self.regions:
            puppet.do(tracing.FILL, start, end - start, start)
        self.at_data = puppet.data
        puppet.freeze()

    def new(self, flags: int, at: int = 0, pages: int = PAGES) -> Tuple[int, int]:
        start = self.puppet.do(tracing.MMAP, at, pages * PAGE_SIZE, 3 | flags << 8)
        assert start > 0
        return start, start + pages * PAGE_SIZE

    def step(self, what: str, place: Tuple[int, int, int], number: int) -> None:
        do = self.puppet.do
        which, first, count = place
        which %= len(self.regions)
        start, end = self.regions[which]
        pages = (end - start) // PAGE_SIZE
        low = start + first % pages * PAGE_SIZE
        length = min(count * PAGE_SIZE, end - low)
        # It may be unmapped or protected by now: made writable, or mapped anew.
        needed = what in ("fill", "fill-bytes", "fork", "read")
        if needed and do(tracing.MPROTECT, low, length, 3):
            do(tracing.MMAP, low, length, 3 | (PRIVATE | FIXED) << 8)
        if what == "fill":
            do(tracing.FILL, low, length, number)
        elif what == "fill-bytes":
            do(tracing.FILL, low + number, min(17, length - number), number)
        elif what == "read":
            do(tracing.READ, low, length)
        elif what == "drop":
            do(tracing.MADVISE, low, length, number)
        elif what == "protect":
            do(tracing.MPROTECT, low, length, number)
        elif what == "unmap":
            do(tracing.MUNMAP, low, length)
        elif what == "remap-same-place":
            do(tracing.MUNMAP, low, length)
            do(tracing.MMAP, low, length, 3 | (number | FIXED) << 8)
            self.shared |= {which} if number == SHARED else set()
        elif what == "new" and len(self.regions) < 6:
            self.shared |= {len(self.regions)} if number == SHARED else set()
            self.regions.append(self.new(number))
        elif what == "file" and len(self.regions) < 6:
            size = PAGES * PAGE_SIZE
            mapped = do(tracing.MMAP_FD, self.file, size, 3 | number << 8)
            assert mapped > 0
            self.regions.append((mapped, mapped + size))
        elif what == "move" and pages * number <= (pages if which in self.shared else FILE_PAGES):
            # Beyond the end of a file, and of what shared memory began with, is SIGBUS.
            moved = do(tracing.MREMAP, start, end - start, pages * number * PAGE_SIZE)
            if moved > 0:
                self.regions[which] = moved, moved + pages * number * PAGE_SIZE
        elif what == "fork":
            do(tracing.FORK, low, length)
        elif what == "brk":
            do(tracing.BRK, number * PAGE_SIZE)
        elif what == "stack":
            do(tracing.STACK, (first + 1) * 9 * PAGE_SIZE, number)
        elif what == "data":
            do(tracing.FILL, self.at_data + first * 100, 50, number)


def compare(path: Path, lives: List[Dict[int, bytes]]) -> None:
    """Every page of every snapshot against what the process held."""
    with_trace = trace.open(str(path))
    try:
        assert len(with_trace.snapshots) == len(lives)
        for number, held in enumerate(lives):
            snapshot = with_trace.snapshot(number)
            for page, data in held.items():
                try:
                    recorded = snapshot.read(page, PAGE_SIZE)
                except MemoryUnavailable as error:
                    raise AssertionError(f"snapshot {number}: {error}") from None
                assert recorded == data, f"snapshot {number}, page {page:#x}"
            snapshot.close()
    finally:
        with_trace.close()


@pytest.mark.slow
@pytest.mark.parametrize("track", [True, False], ids=["tracked", "all memory"])
@given(life=stretches)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_lives(built, track, life):
    folder = Path(tempfile.mkdtemp(prefix="gdb-uffd-test-"))
    file = os.open(folder / "mapped", os.O_RDWR | os.O_CREAT)
    os.write(file, os.urandom(FILE_PAGES * PAGE_SIZE))
    puppet = Puppet(built, pass_fds=[file])
    try:
        recorder = puppet.start(folder / "t", track=track)
        assert recorder.tracked == (track and not kernel().failure("wp-async"))
        grown = Life(puppet, file)
        lives: List[Dict[int, bytes]] = []
        for stretch in life:
            puppet.thaw()
            for step in stretch:
                grown.step(*step)
            puppet.freeze()
            puppet.snapshot()
            # Looking at all pages makes them present; looking at present ones does not.
            lives.append(dict(puppet.held(populate=len(lives) % 3 == 2)))
        recorder.close()
        compare(folder / "t.uffd", lives)
    finally:
        puppet.end()
        os.close(file)
        shutil.rmtree(folder)
