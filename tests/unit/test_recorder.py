"""The recorder on a live process, without gdb: what a snapshot holds, and what it costs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable, Iterator

import pytest
from harness import tracing
from harness.tracing import FILL, MADVISE, MMAP, MMAP_FD, MPROTECT, MREMAP, MUNMAP, Puppet

from gdb_uffd import trace
from gdb_uffd.client.recording.recorder_client import RecorderFailed
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable
from gdb_uffd.replay.trackers import kernel

PRIVATE, SHARED, FIXED, NORESERVE = 0x22, 0x21, 0x10, 0x4000
DONTNEED, HUGEPAGE, GUARD_INSTALL = 4, 14, 102  # <linux/mman.h>
RW = 3
SLACK = 8
"""Pages that the puppet dirties by itself while it obeys: stack, stdio, libc's data."""


@pytest.fixture
def start(built, tmp_path) -> Iterator[Callable[..., Puppet]]:
    """Starts a puppet and its recording to tmp_path/t.uffd."""
    puppets = []

    def begin(**keywords: object) -> Puppet:
        files = keywords.pop("pass_fds", ())
        puppet = Puppet(built, pass_fds=files)
        puppets.append(puppet)
        puppet.start(tmp_path / "t", **keywords)  # type: ignore[arg-type]
        return puppet

    yield begin
    for puppet in puppets:
        puppet.end()


class Story:
    """A puppet between snapshots, and the trace afterwards."""

    def __init__(self, puppet: Puppet, path: Path) -> None:
        self.puppet, self.path = puppet, path
        self.lives = []

    def snapshot(self) -> int:
        """Take one; pages changed."""
        self.puppet.snapshot()
        self.lives.append(dict(self.puppet.held(populate=False)))
        self.puppet.recorder.settle()
        return self.puppet.recorder.last.pages_changed

    def do(self, *words: int) -> int:
        self.puppet.thaw()
        try:
            return self.puppet.do(*words)
        finally:
            self.puppet.freeze()

    def region(self, pages: int, flags: int = PRIVATE) -> int:
        at = self.do(MMAP, 0, pages * PAGE_SIZE, RW | flags << 8)
        assert at > 0
        return at

    def fill(self, at: int, pages: int, seed: int = 5) -> None:
        self.do(FILL, at, pages * PAGE_SIZE, seed)

    def close(self) -> "trace.Trace":
        self.puppet.recorder.close()
        opened = trace.open(str(self.path))
        assert len(opened.snapshots) == len(self.lives)
        for number, held in enumerate(self.lives):
            snapshot = opened.snapshot(number)
            for page, data in held.items():
                assert snapshot.read(page, PAGE_SIZE) == data, f"{number}: {page:#x}"
            snapshot.close()
        return opened


@pytest.fixture
def story(start, tmp_path) -> Story:
    """A recording that tracks what is written, where the kernel can; else all is compared."""
    puppet = start()
    assert puppet.recorder.tracked == (not kernel().failure("wp-async")), puppet.recorder.why
    return Story(puppet, tmp_path / "t.uffd")


def test_only_what_was_written_is_copied(story):
    at = story.region(512)
    story.fill(at, 512)
    assert story.snapshot() > 512
    assert story.snapshot() <= SLACK
    story.fill(at + 100 * PAGE_SIZE, 7, 9)
    assert 7 <= story.snapshot() <= 7 + SLACK
    story.close()


def test_dropped_pages_read_as_zeros(story):
    at = story.region(16)
    story.fill(at, 16)
    story.snapshot()
    story.do(MADVISE, at + 4 * PAGE_SIZE, 3 * PAGE_SIZE, DONTNEED)
    story.snapshot()
    opened = story.close()
    assert opened.snapshot(0).read(at + 4 * PAGE_SIZE, 16) != bytes(16)
    assert opened.snapshot(1).read(at + 4 * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def mapped_file(path: Path, pages: int, fill: bytes = b"f") -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, fill * pages * PAGE_SIZE)
    return descriptor


@pytest.mark.parametrize("deleted", [False, True], ids=["there", "deleted"])
def test_private_file_pages_dropped_are_the_files_again(start, tmp_path, deleted):
    file = mapped_file(tmp_path / "data", 8)
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 8 * PAGE_SIZE, RW | 2 << 8)
    story.fill(at + PAGE_SIZE, 4)
    if deleted:
        os.unlink(tmp_path / "data")
    os.close(file)
    story.snapshot()
    story.fill(at + 2 * PAGE_SIZE, 1, 7)  # written again before it is dropped: no marker stays
    story.do(MADVISE, at + PAGE_SIZE, 2 * PAGE_SIZE, DONTNEED)
    story.snapshot()
    opened = story.close()
    after = opened.snapshot(1)
    assert after.read(at, 3 * PAGE_SIZE) == b"f" * 3 * PAGE_SIZE
    assert after.read(at + 7 * PAGE_SIZE, 8) == b"f" * 8
    assert opened.snapshot(0).read(at + PAGE_SIZE, 8) != b"f" * 8


@pytest.mark.parametrize("before", [1, 2], ids=["shared", "private"])
def test_a_file_mapped_anew_where_its_bytes_were(start, tmp_path, before):
    """Its pages were left out as equal to those of the mapping before, and read as zeros."""
    file = mapped_file(tmp_path / "data", 8)
    os.unlink(tmp_path / "data")
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 8 * PAGE_SIZE, RW | before << 8)
    story.snapshot()
    story.do(MUNMAP, at, 8 * PAGE_SIZE)
    assert story.do(MMAP_FD, file, 8 * PAGE_SIZE, RW | 2 << 8) == at
    story.fill(at + PAGE_SIZE, 1)
    story.snapshot()
    story.snapshot()
    opened = story.close()
    os.close(file)
    for number in (1, 2):
        read = opened.snapshot(number).read(at, 8 * PAGE_SIZE)
        assert read[:PAGE_SIZE] + read[2 * PAGE_SIZE :] == b"f" * 7 * PAGE_SIZE
        assert read[PAGE_SIZE : 2 * PAGE_SIZE] != b"f" * PAGE_SIZE


@pytest.mark.parametrize("kind", ["deleted", "there", "memfd"])
def test_pages_that_are_the_files_own_follow_the_file(start, tmp_path, kind):
    if kind == "memfd":
        file = os.memfd_create("data")
        os.write(file, b"f" * 8 * PAGE_SIZE)
    else:
        file = mapped_file(tmp_path / "data", 8)
    if kind == "deleted":
        os.unlink(tmp_path / "data")
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 8 * PAGE_SIZE, RW | 2 << 8)
    story.fill(at + PAGE_SIZE, 1)
    story.do(tracing.READ, at, 8 * PAGE_SIZE)
    for byte in b"ABC":
        story.snapshot()
        os.pwrite(file, bytes([byte]) * 2 * PAGE_SIZE, PAGE_SIZE)
    story.snapshot()
    os.close(file)
    opened = story.close()
    followed = [opened.snapshot(n).read(at + 2 * PAGE_SIZE, 1) for n in range(4)]
    assert followed == [b"f", b"A", b"B", b"C"]


def test_dropped_pages_of_a_file_that_is_referred_to(start, built, tmp_path):
    copy = tmp_path / "program"
    copy.write_bytes((built / "puppet").read_bytes())
    file = os.open(copy, os.O_RDWR)
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 4 * PAGE_SIZE, RW | 2 << 8)
    os.close(file)
    story.fill(at + PAGE_SIZE, 2)
    story.snapshot()
    story.fill(at + 2 * PAGE_SIZE, 1, 7)
    story.do(MADVISE, at + PAGE_SIZE, 2 * PAGE_SIZE, DONTNEED)
    story.snapshot()
    story.do(tracing.READ, at, 4 * PAGE_SIZE)
    story.snapshot()
    opened = story.close()
    content = copy.read_bytes()
    for number in (1, 2):
        snapshot = opened.snapshot(number)
        assert snapshot.read(at, 3 * PAGE_SIZE) == content[: 3 * PAGE_SIZE]
        assert snapshot.read(at + 3 * PAGE_SIZE, 64) == content[3 * PAGE_SIZE :][:64]
    assert story.puppet.recorder.last.pages_stored < 64  # the file itself is not stored


def test_pages_past_the_end_of_a_file_are_unavailable(start, tmp_path):
    file = mapped_file(tmp_path / "short", 1)
    os.unlink(tmp_path / "short")
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 4 * PAGE_SIZE, RW | 2 << 8)
    os.close(file)
    story.snapshot()
    with pytest.raises(MemoryUnavailable):
        story.close().snapshot(0).read(at + 2 * PAGE_SIZE, 1)


def test_unmapped_and_mapped_again_at_the_same_place(story):
    at = story.region(16)
    story.fill(at, 16)
    story.snapshot()
    story.do(MUNMAP, at, 16 * PAGE_SIZE)
    assert story.do(MMAP, at, 16 * PAGE_SIZE, RW | (PRIVATE | FIXED) << 8) == at
    story.fill(at + PAGE_SIZE, 1, 77)
    story.snapshot()
    story.snapshot()
    story.close()


def test_moved_grown_split(story):
    at = story.region(16)
    story.fill(at, 16)
    story.snapshot()
    moved = story.do(MREMAP, at, 16 * PAGE_SIZE, 64 * PAGE_SIZE)
    forced = tracing.reads_what_is_protected()
    if forced:
        story.do(MPROTECT, moved + 3 * PAGE_SIZE, PAGE_SIZE, 0)
    story.do(tracing.BRK, 20 * PAGE_SIZE)
    deep = story.do(tracing.STACK, 1 << 19, 3)
    story.snapshot()
    story.do(MPROTECT, moved + 3 * PAGE_SIZE, PAGE_SIZE, RW)
    story.fill(moved + 2 * PAGE_SIZE, 3, 8)
    assert story.snapshot() <= 3 + SLACK
    opened = story.close()
    assert opened.snapshot(1).read(deep, 8) != bytes(8)
    if not forced:
        pytest.skip("this kernel gives pages without read permission to the tracer alone")


def test_a_fork_shows_in_nothing(story):
    at = story.region(16)
    story.fill(at, 16)
    story.snapshot()
    story.do(tracing.FORK, at, 16 * PAGE_SIZE)
    assert story.snapshot() <= SLACK
    story.fill(at, 2, 9)  # the first write after a fork copies the page
    assert 2 <= story.snapshot() <= 2 + SLACK
    story.close()


def test_what_another_process_writes_into_shared_memory(story):
    at = story.region(4, SHARED)
    story.snapshot()
    story.do(tracing.FORK, at, 4 * PAGE_SIZE)  # the child writes, the recorded process does not
    assert story.snapshot() >= 4
    opened = story.close()
    assert opened.snapshot(1).read(at, 8) != bytes(8)


def test_an_address_space_that_is_only_reserved_costs_nothing(story):
    size = 1 << 40
    at = story.do(MMAP, 0, size, 0 | (PRIVATE | NORESERVE) << 8)
    assert at > 0
    story.do(MPROTECT, at + (size >> 1), 4 * PAGE_SIZE, RW)
    story.fill(at + (size >> 1), 2)
    story.puppet.snapshot()
    story.puppet.recorder.settle()
    story.fill(at + (size >> 1), 1, 9)
    story.puppet.snapshot()
    story.puppet.recorder.settle()
    status = Path(f"/proc/{story.puppet.pid}/status").read_text(encoding="utf-8")
    tables = int(status.split("VmPTE:")[1].split()[0])
    assert tables < 1024, "kB of page tables: the reservation was write-protected as a whole"
    story.puppet.recorder.close()
    opened = trace.open(str(story.path))
    assert opened.snapshot(1).read(at, 8) == bytes(8)
    assert opened.snapshot(1).read(at + (size >> 1), 8) != opened.snapshot(0).read(
        at + (size >> 1), 8
    )


def test_huge_pages_are_tracked_page_by_page(story):
    at = story.region(2048)
    at = (at + (1 << 21) - 1) >> 21 << 21
    story.do(MADVISE, at, 1 << 21, HUGEPAGE)
    story.fill(at, 512)
    maps = Path(f"/proc/{story.puppet.pid}/smaps").read_text(encoding="utf-8")
    if "AnonHugePages:      2048 kB" not in maps:
        pytest.skip("no huge page was to be had")
    assert story.snapshot() >= 512
    story.do(FILL, at + 100 * PAGE_SIZE + 8, 4, 1)
    assert 1 <= story.snapshot() <= 1 + SLACK
    story.close()


@pytest.mark.parametrize("huge", [False, True])
def test_a_whole_page_table_dropped(story, huge):
    at = story.region(2048)
    at = (at + (1 << 21) - 1) >> 21 << 21
    if huge:
        story.do(MADVISE, at, 1 << 21, HUGEPAGE)
    story.fill(at, 1024)
    story.snapshot()
    story.fill(at + 700 * PAGE_SIZE, 1, 9)
    story.do(MADVISE, at, 1 << 21, DONTNEED)
    story.snapshot()
    story.fill(at + 3 * PAGE_SIZE, 1, 9)
    story.do(MADVISE, at + 800 * PAGE_SIZE, 3 * PAGE_SIZE, DONTNEED)
    story.snapshot()
    opened = story.close()
    assert opened.snapshot(1).read(at, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert opened.snapshot(2).read(at + 800 * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_guard_pages_are_unavailable(story):
    at = story.region(8)
    story.fill(at, 8)
    if story.do(MADVISE, at + PAGE_SIZE, PAGE_SIZE, GUARD_INSTALL):
        pytest.skip("this kernel has no guard pages (6.13)")
    story.puppet.snapshot()
    story.fill(at + 2 * PAGE_SIZE, 1, 3)
    story.puppet.snapshot()
    story.puppet.recorder.close()
    opened = trace.open(str(story.path))
    for number in (0, 1):
        with pytest.raises(MemoryUnavailable):
            opened.snapshot(number).read(at + PAGE_SIZE, 1)
        assert opened.snapshot(number).read(at, 8) != bytes(8)


def test_memory_that_the_program_watches_itself(story):
    at = story.region(8)
    story.fill(at, 4)
    assert story.do(tracing.UFFD, at, 8 * PAGE_SIZE) == 0
    story.snapshot()
    story.fill(at, 1, 9)
    assert 1 <= story.snapshot() <= 1 + SLACK
    story.close()


def test_shared_memory_that_the_program_fills_when_it_is_touched(start, tmp_path):
    """A page that is not there would be waited for: its handler stands still with the program."""
    file = os.memfd_create("lazy")
    os.ftruncate(file, 8 * PAGE_SIZE)
    story = Story(start(pass_fds=[file]), tmp_path / "t.uffd")
    at = story.do(MMAP_FD, file, 8 * PAGE_SIZE, RW | 1 << 8)
    story.fill(at, 2)
    if story.do(tracing.UFFD, at, 8 * PAGE_SIZE):
        pytest.skip("no userfaultfd for shared memory here")
    os.close(file)
    story.puppet.snapshot()
    story.puppet.recorder.close()
    snapshot = trace.open(str(story.path)).snapshot(0)
    assert snapshot.read(at, 8) != bytes(8)
    with pytest.raises(MemoryUnavailable):
        snapshot.read(at + 4 * PAGE_SIZE, 1)


def test_threads(story):
    for _ in range(3):
        story.do(tracing.THREAD)
    story.snapshot()
    snapshot = story.close().snapshot(0)
    assert sorted(t.tid for t in snapshot.threads) == sorted(story.puppet.frozen)
    assert snapshot.threads[0].tid == story.puppet.pid
    assert all(t.registers.xfeatures & 7 >= 3 for t in snapshot.threads)


def test_self_contained(start, built, tmp_path):
    story = Story(start(self_contained=True), tmp_path / "t.uffd")
    story.snapshot()
    snapshot = story.close().snapshot(0)
    text = next(m for m in snapshot.mappings if "puppet" in m.name and m.prot & 4)
    assert snapshot.read(text.start, 16) != bytes(16)


def test_the_program_ends(story):
    story.snapshot()
    story.puppet.process.kill()
    tracing.ptrace.look(story.puppet.pid, block=True)
    with pytest.raises(RecorderFailed, match="ended"):
        story.puppet.recorder.capture()
        story.puppet.recorder.wait_captured()
    story.puppet.recorder.end()
    assert len(trace.open(str(story.path)).snapshots) == 1


def test_the_trace_is_removed(story):
    story.snapshot()
    story.path.rename(story.path.with_name("moved.uffd"))
    with pytest.raises(RecorderFailed, match="the trace was removed"):
        story.snapshot()


@pytest.mark.parametrize("after", ["capture", "threads"])
def test_a_snapshot_that_is_given_up(story, after):
    """gdb's side fails half way, and ends the recording; gdb holds the program meanwhile, so that
    nothing may wait for it to let go."""
    story.snapshot()
    recorder = story.puppet.recorder
    recorder.capture()
    if after == "threads":
        info = {"label": "", "pid": story.puppet.pid, "tid": story.puppet.pid, "time_ns": 1}
        recorder.threads(info, story.puppet._thread(story.puppet.pid))
        recorder.wait_captured()
    recorder.close(leaving=True)
    assert recorder.failure == "" and not list(story.path.glob("*-wal"))
    assert len(trace.open(str(story.path)).snapshots) == 1


def test_the_recorder_is_killed(story):
    story.snapshot()
    os.kill(story.puppet.recorder.pid, signal.SIGKILL)
    with pytest.raises(RecorderFailed, match="SIGKILL"):
        story.snapshot()
    # The program is no worse for it.
    at = story.region(4)
    story.fill(at, 4)
    assert len(trace.open(str(story.path)).snapshots) == 1


def test_an_existing_file_is_left_alone(built, tmp_path):
    (tmp_path / "t.uffd").write_text("mine")
    puppet = Puppet(built)
    try:
        with pytest.raises(RecorderFailed, match="exists already"):
            puppet.start(tmp_path / "t")
    finally:
        puppet.end()
    assert (tmp_path / "t.uffd").read_text() == "mine"
