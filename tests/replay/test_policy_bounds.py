"""Arguments that no honest program passes: the upper half of an int, ranges without end, gaps."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Iterator

import pytest
from harness.asking import Asker, policy_core
from harness.telling import asked, message

AT_FDCWD = -100
UPPER = 1 << 32
"""The kernel ignores it where an argument is an int (man syscall)."""
PAGE = 4096
READ_WRITE, ANONYMOUS, NORESERVE = 3, 0x22, 0x4000
MAYMOVE = 1
F_GETFD, F_SETFD, F_GETFL, F_DUPFD = 1, 2, 3, 0
FIONCLEX, FIOCLEX, FIONREAD = 0x5450, 0x5451, 0x541B
DONTNEED, POPULATE_READ, POPULATE_WRITE, HWPOISON = 4, 22, 23, 100


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("bounds"))


@pytest.fixture(params=["notified", "traced"])
def asker(core, request) -> Iterator[Asker]:
    made = Asker(core)
    made.diversion.vessel.native.no_listener = request.param == "traced"
    yield made
    made.close()


@pytest.fixture
def file(tmp_path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(bytes(range(256)) * 4 * 4096)
    return made


def mapped(asker: Asker, length: int) -> int:
    """Fresh memory of the program's, kept."""
    at = asker.ask("mmap", 0, length, READ_WRITE, ANONYMOUS | NORESERVE, -1, 0, keep=True)
    assert at > 0
    return at


# -- what is an int to the kernel is an int here ----------------------------------------------


@pytest.mark.parametrize("far", [1, 0x12345, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_upper_half_of_a_descriptor_does_not_count(asker, file, far):
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0, keep=True) == 3
    three = 3 + far * UPPER
    assert asker.ask("fcntl", three, F_SETFD, 1, keep=True) == 0
    assert asker.ask("fcntl", three, F_GETFD) == asker.ask("fcntl", 3, F_GETFD) == 1
    assert asker.ask("ioctl", three, FIONCLEX, keep=True) == 0
    assert asker.ask("fcntl", 3, F_GETFD) == 0
    assert asker.ask("ioctl", three, FIOCLEX, keep=True) == 0
    assert asker.ask("fcntl", 3, F_GETFD) == 1
    assert asker.ask("fcntl", three, F_GETFL + UPPER) == asker.ask("fcntl", 3, F_GETFL)
    assert asker.ask("fcntl", three, F_DUPFD, 7 + far * UPPER) == 7
    assert asker.ask("ioctl", three, FIONREAD + UPPER, asker.room) == 0
    for call, *arguments in (
        ("read", asker.room, 10), ("pread64", asker.room, 10, 0), ("lseek", 0, UPPER),
        ("fstat", asker.room), ("dup",), ("dup2", 5 + UPPER), ("dup3", 5 + UPPER, 0),
        ("readv", struct.pack("<QQ", asker.room, 8), 1), ("fstatfs", asker.room), ("fsync",),
        ("newfstatat", "", asker.room, 0x1000), ("statx", "", 0x1000, 0xFFF, asker.room),
        ("mmap_of", 0),
    ):  # fmt: skip
        if call == "mmap_of":
            assert asker.ask("mmap", 0, PAGE, 1, 2, three, 0) > 0
            continue
        assert asker.ask(call, three, *arguments) == asker.ask(call, 3, *arguments) >= 0, call
    assert asker.ask("close", three) == 0


def test_no_number_is_taken_for_a_descriptor(asker):
    for number in (-1, 1024, 1 << 31, 0x7FFFFFFF, -(1 << 31)):
        for call, *rest in (
            ("fcntl", F_SETFD, 1), ("fcntl", F_GETFD), ("fcntl", F_DUPFD, 0), ("ioctl", FIOCLEX),
            ("dup",), ("close",), ("read", asker.room, 1), ("lseek", 0, 0), ("fchdir",),
        ):  # fmt: skip
            assert asker.ask(call, number, *rest) == -errno.EBADF, (call, number)
        for call in ("dup2", "dup3"):
            assert asker.ask(call, 1, number, 0) == -errno.EBADF
        assert asker.ask("fcntl", 1, F_DUPFD, number) == -errno.EINVAL
        assert asker.ask("close_range", number & 0xFFFFFFFF, 0xFFFFFFFF, 0) == 0


def test_flags_that_nobody_knows(asker):
    assert asker.ask("futex", asker.room, 0x200, 0, 0) == -errno.ENOSYS  # FUTEX_WAIT | 0x200
    assert asker.ask("statx", AT_FDCWD, "/", 1 << 20, 0xFFF, asker.room) == -errno.EINVAL
    assert asker.ask("newfstatat", AT_FDCWD, "/", asker.room, 1 << 20) == -errno.EINVAL
    for flags, mode in ((UPPER, 0), (0, 0o600)):
        how = struct.pack("<QQQ", flags, mode, 0)
        assert asker.ask("openat2", AT_FDCWD, "/etc/passwd", how, 24) == -errno.EINVAL
    assert asker.ask("close_range", 0, 2, 8) == -errno.EINVAL
    assert asker.ask("close_range", 1, 2, 4, keep=True) == 0  # CLOSE_RANGE_CLOEXEC
    assert [asker.ask("fcntl", n, F_GETFD) for n in (0, 1, 2)] == [0, 1, 1]


def test_the_recorded_directory_opens_no_way_out(asker):
    """A recording may be made up: its directory is found as any other path is."""
    kernel_state = asker.diversion.vessel.native.kernel_state
    for made_up in (b"/proc/self/root", b"/proc/self/cwd", b"/proc", b"/sys/bus"):
        asker.diversion.reset()
        kernel_state.cwd = made_up
        assert asker.ask("openat", AT_FDCWD, ".", 0, 0) in (-errno.EACCES, -errno.ELOOP)
    asker.diversion.reset()
    assert asker.ask("openat", AT_FDCWD, "/sys/devices/system/cpu/online", 0, 0) == 3
    assert asker.ask("openat", AT_FDCWD, "/sys/bus", 0, 0) == -errno.EACCES


# -- one call does a bounded amount of work ---------------------------------------------------


def test_mincore_of_a_whole_address_space(asker):
    at = mapped(asker, 200 << 30)
    assert asker.ask("mincore", at, 200 << 30, asker.room) == -errno.EAGAIN
    assert asker.ask("mincore", at, 20 * PAGE, asker.room, keep=True) == 0
    assert asker.memory(21) == bytes([1] * 20 + [0])
    assert asker.ask("mincore", at, (200 << 30) - (190 << 30), asker.room) == -errno.EFAULT
    assert asker.ask("mincore", 1 << 40, PAGE, asker.room) == -errno.ENOMEM
    assert asker.ask("mincore", 0, (1 << 64) - PAGE, asker.room) == -errno.EAGAIN


def test_vectors_move_a_mebibyte_at_once(asker, file):
    """readv(2): as much as it likes, and says how much."""
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0, keep=True) == 3
    room = mapped(asker, 4 << 20)
    many = struct.pack("<QQ", room, 4 << 20) * 64
    assert asker.ask("readv", 3, many, 64) == 1 << 20
    assert asker.ask("preadv", 3, many, 64, 100, 0) == 1 << 20
    assert asker.ask("read", 3, room, 1 << 40) == 1 << 20
    small = struct.pack("<QQ", room, 1000) * 3
    assert asker.ask("readv", 3, small, 3) == 3000
    assert asker.ask("writev", 1, many, 64) == 1 << 20
    assert len(asker.reports[-1].output.encode()) <= 1 << 20


def test_advice_that_the_kernel_could_not_be_stopped_in(asker):
    at = mapped(asker, 3000 << 20)
    for advice in (POPULATE_READ, POPULATE_WRITE, HWPOISON, 25, 99):
        assert asker.ask("madvise", at, 3000 << 20, advice) == -errno.EINVAL
    for advice in (0, 1, 2, 3, 8, 10, 12, 15, 16, 20, 21):
        assert asker.ask("madvise", at, 3000 << 20, advice) == 0, advice


# -- changes that stop at a gap ---------------------------------------------------------------


@pytest.fixture
def gap(asker) -> int:
    """Four pages full of sixes, and four behind a gap of one; the address of the first."""
    at = mapped(asker, 9 * PAGE)
    assert asker.ask("munmap", at + 4 * PAGE, PAGE, keep=True) == 0
    for page in (0, 1, 2, 3, 5, 6, 7, 8):
        asker.diversion.write_memory(at + page * PAGE, b"\6" * PAGE)
    asker.diversion.commit_pending()
    return at


def test_madvise_goes_on_behind_a_gap(asker, gap):
    assert asker.ask("madvise", gap, 9 * PAGE, DONTNEED, keep=True) == -errno.ENOMEM
    for page in (0, 3, 5, 8):
        assert asker.diversion.read_memory(gap + page * PAGE, PAGE) == bytes(PAGE)


def test_mprotect_stops_at_a_gap(asker, gap):
    assert asker.ask("mprotect", gap, 9 * PAGE, 1, keep=True) == -errno.ENOMEM
    assert asker.ask("uname", gap) == -errno.EFAULT
    assert asker.ask("uname", gap + 3 * PAGE) == -errno.EFAULT
    assert asker.ask("uname", gap + 5 * PAGE) == 0
    assert asker.ask("mprotect", gap + 4 * PAGE, PAGE, 0) == -errno.ENOMEM
    assert asker.ask("uname", gap + 5 * PAGE) == 0


# -- memory without bound, whoever touches it -------------------------------------------------


def test_shrinking_what_nobody_touched_needs_no_memory(asker):
    asker.set(memory_limit=1 << 20)
    at = mapped(asker, 64 << 20)
    assert asker.ask("mremap", at, 64 << 20, (64 << 20) - PAGE, MAYMOVE) == at


def test_moving_more_than_there_may_be(asker):
    asker.set(memory_limit=1 << 20)
    at = mapped(asker, 64 << 20)
    elsewhere = mapped(asker, 64 << 20)
    asker.place("mremap", at, 64 << 20, 64 << 20, MAYMOVE | 2, elsewhere)
    assert "more than 1 MiB" in message(asker.stopped("raw"))
    assert asker.ask("mremap", at, 8 * PAGE, 8 * PAGE, MAYMOVE | 2, elsewhere) == elsewhere


def test_growing_in_place_writes_nothing(asker):
    at = mapped(asker, 16 * PAGE)
    assert asker.ask("munmap", at + 8 * PAGE, 8 * PAGE, keep=True) == 0
    asker.diversion.write_memory(at, b"old")
    asker.diversion.commit_pending()
    asker.ask("mremap", at, 8 * PAGE, 16 * PAGE, 0, keep=True)
    assert not [page for page in asker.reports[-1].pages if at <= page.start < at + 16 * PAGE]
    assert asker.diversion.read_memory(at, 3) == b"old"
    for place in (at, at + 7 * PAGE, at + 15 * PAGE):  # all of it is still followed
        assert asker.ask("uname", place) == 0
        assert place in [page.start for page in asker.reports[-1].pages]
        assert asker.diversion.read_memory(place, 3) == (b"old" if place == at else bytes(3))
    assert asker.ask("mremap", at, 16 * PAGE, 2 * PAGE, 0, keep=True) == at
    assert asker.ask("uname", at + 2 * PAGE) == -errno.EFAULT


@pytest.mark.parametrize("call", ["read", "getrandom", "rt_sigprocmask"])
def test_what_the_kernel_writes_counts(asker, file, call):
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0, keep=True) == 3
    asker.set(memory_limit=1 << 20)
    room = mapped(asker, 4 << 20)
    requests = {
        "read": (3, room, 4 << 20),
        "getrandom": (room, 4 << 20, 0),
        "rt_sigprocmask": (0, 0, room + (3 << 20), 8),
    }
    if call == "rt_sigprocmask":  # one page, with no room left for it
        asker.ask("read", 3, room, 1 << 20, keep=True)
    asker.set(memory_limit=512 << 10)
    asker.place(call, *requests[call])
    stop = asker.stopped("raw_often", 8)
    assert "of memory that was not recorded" in message(stop)


# -- what the report tells of calls that run untouched ----------------------------------------


def test_what_no_record_knows_and_what_stays_is_told(asker):
    assert asker.ask("getrandom", asker.room, 8, 0) == 8
    assert asked(asker.reports[-1]) == ["getrandom"]
    assert asker.ask("rt_sigprocmask", 0, b"\x00\x02" + bytes(6), 0, 8) == 0  # SIG_BLOCK SIGUSR1
    assert asked(asker.reports[-1]) == ["rt_sigprocmask"]
    assert asker.ask("rt_sigprocmask", 0, 0, asker.room, 8) == 0
    assert asker.call("nothing") == 7
    assert asked(asker.reports[-1]) == []


FIXED = 0x10


@pytest.fixture
def block(asker) -> int:
    """Recorded: four pages full of sixes, four of zeros."""
    return int.from_bytes(asker.diversion.read_memory(asker.symbol("block"), 8), "little")


def lost(asker: Asker, block: int) -> list[int]:
    """The pages of the block that the last report lists with all their bytes changed."""
    pages = asker.reports[-1].pages
    return [
        p.start for p in pages if p.bytes_changed == PAGE and block <= p.start < block + 8 * PAGE
    ]


def test_recorded_bytes_that_go_are_told(asker, block):
    full = [block + i * PAGE for i in range(4)]
    for _ in range(2):
        assert asker.ask("madvise", block, 8 * PAGE, DONTNEED) == 0
        assert lost(asker, block) == full
        assert asker.diversion.read_memory(block, 2) == b"\6\6"
    fresh = (8 * PAGE, READ_WRITE, ANONYMOUS | FIXED, -1, 0)
    assert asker.ask("mmap", block, *fresh) == block
    assert lost(asker, block) == full
    assert asker.ask("munmap", block, 4 * PAGE) == 0
    assert lost(asker, block) == []  # what is not there has no bytes
    assert asker.diversion.read_memory(block, 2) == b"\6\6"
    assert asker.ask("madvise", block, 2 * PAGE, DONTNEED, keep=True) == 0
    assert asker.diversion.read_memory(block, 2 * PAGE) == bytes(2 * PAGE)
    assert asker.ask("madvise", block, 8 * PAGE, DONTNEED) == 0
    assert lost(asker, block) == full[2:]
    everything = [page.start for page in asker.diversion.report_all().pages]
    assert [page for page in full if page in everything] == full[:2]
    asker.diversion.reset()
    assert asker.diversion.read_memory(block, 2) == b"\6\6"
