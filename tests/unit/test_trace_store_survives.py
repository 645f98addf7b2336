"""A snapshot is wholly in the trace or not at all: writers killed, disks full."""

from __future__ import annotations

import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest
from trace_stores import BASE, PAGE, info, thread

import gdb_uffd.trace
from gdb_uffd.protocol.model import Mapping, UffdError
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import verify
from gdb_uffd.trace.store.write import TraceWriter

PAGES = 20
KILLS = 300


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In memory where that is possible: being killed asks nothing of the disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="gdb-uffd-test-", dir="/dev/shm"))
    (made / "work").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    yield made / "work"
    shutil.rmtree(made)


def written(seed: int) -> Iterator[Dict[int, bytes]]:
    """What snapshot after snapshot of a made-up process writes: page number -> bytes."""
    random_ = random.Random(seed)
    yield {n: random_.randbytes(PAGE) for n in range(PAGES)}
    while True:
        some = random_.sample(range(PAGES), random_.randint(1, 12))
        yield {n: random_.choice([random_.randbytes(PAGE), bytes(PAGE)]) for n in sorted(some)}


def write_snapshots(path: str, seed: int, report: Callable[[int], None], most: int = 1000) -> None:
    """Record until the end; tells each number once it is committed."""
    writer = TraceWriter.create(path)
    try:
        for number, changes in enumerate(written(seed)):
            if number == most:
                break
            mappings = [Mapping(BASE, BASE + PAGES * PAGE, 3)]
            pending = writer.begin(info(f"{number}"), [thread(seed=number)], b"", mappings)
            if number == 0:
                pending.area(BASE, PAGES)
            for page, content in changes.items():
                pending.put(BASE + page * PAGE, content)
            pending.commit()
            report(number)
    finally:
        writer.close()


def check(path: str, seed: int, completed: int) -> StoreTrace:
    """`completed` snapshots or one more are there, each byte right."""
    trace = gdb_uffd.trace.open(path)
    assert isinstance(trace, StoreTrace)
    assert len(trace.snapshots) in (completed, completed + 1)
    assert not trace.warnings and verify(trace).whole
    memory: Dict[int, bytes] = {}
    for number, changes in zip(range(len(trace.snapshots)), written(seed)):
        memory.update(changes)
        snapshot = trace.snapshot(number)
        expected = b"".join(memory[n] for n in range(PAGES))
        assert snapshot.read(BASE, PAGES * PAGE) == expected
        assert snapshot.threads == [thread(seed=number)]
        assert trace.snapshots[number].label == str(number)
        snapshot.close()
    return trace


def start(path: str, seed: int) -> "tuple[int, int]":
    """A child that records until it is killed: its PID, and where it reports."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receive)
            write_snapshots(path, seed, lambda number: os.write(send, b".") and None)
        finally:
            os._exit(1)
    os.close(send)
    return pid, receive


@pytest.mark.slow
def test_killed_at_any_instant(folder: Path) -> None:
    seed_of_this_run = time.time_ns()
    print(f"random.Random({seed_of_this_run})")  # shown when it fails
    random_ = random.Random(seed_of_this_run)
    path = str(folder / "t.uffd")
    seen: List[int] = []
    for seed in range(KILLS):
        pid, reports = start(path, seed)
        wanted, completed = random_.choice([0, 1, 1, 2, 3, 5, 8, 20]), 0
        while completed < wanted:
            completed += len(os.read(reports, 1))
        # A random stretch of the work between two reports.
        select.select([], [], [], random_.random() * random_.choice([0.0005, 0.003, 0.01]))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        while os.read(reports, 1):
            completed += 1
        os.close(reports)
        if completed or os.path.exists(path):
            try:
                trace = check(path, seed, completed)
                seen.append(len(trace.snapshots))
                trace.close()
            except UffdError as error:
                assert not completed and "no snapshot was completed" in str(error)
        for left in os.listdir(folder):
            shutil.rmtree(folder / left)
    assert len(set(seen)) > 3


def write_until(nth: int, path: str, send: int) -> None:
    """Record three snapshots; die halfway through write number `nth` of pages or checksums."""
    real, calls = os.pwrite, 0

    def dying(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        if calls == nth:
            real(fd, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(fd, data, offset)

    os.pwrite = dying
    write_snapshots(path, 5, lambda number: os.write(send, b".") and None, most=3)


def test_killed_in_each_of_its_writes(folder: Path) -> None:
    path = str(folder / "t.uffd")
    for nth in range(200):
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                write_until(nth, path, send)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(send)
        _, status = os.waitpid(pid, 0)
        completed = len(os.read(receive, 100))
        os.close(receive)
        if completed:
            check(path, 5, completed).close()
        shutil.rmtree(path)
        if status == 0:
            assert completed == 3 and nth > 10
            return
        assert status == signal.SIGKILL
    pytest.fail("the writer never came to its end")


def outcome(path: str, seed: int, prepare: Callable[[], None]) -> "tuple[int, str]":
    """How many snapshots were committed before the disk was full, and what was said."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            try:
                write_snapshots(path, seed, lambda number: os.write(send, b".") and None, most=40)
            except UffdError as error:
                os.write(send, str(error).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(send)
    told = b""
    while True:
        part = os.read(receive, 65536)
        if not part:
            break
        told += part
    os.close(receive)
    assert os.waitpid(pid, 0)[1] == 0
    completed = len(told) - len(told.lstrip(b"."))
    return completed, told[completed:].decode()


def test_files_that_may_not_grow(folder: Path) -> None:
    """RLIMIT_FSIZE at many sizes: whichever write fails first, of pages, sums or index."""
    path = str(folder / "t.uffd")
    counts = set()
    for size in [*range(40, 250, 9), 900]:

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size * 1024, size * 1024))

        completed, said = outcome(path, size, limit)
        counts.add(completed)
        if said:
            assert said.startswith(path) and "\n" not in said, said
        if "cannot be made" in said:
            assert not os.listdir(folder)
            continue
        if completed < 40:
            have = f"{completed} snapshots are" if completed != 1 else "1 snapshot is"
            assert f"recording stops, {have} in the trace" in said
        if completed:
            trace = check(path, size, completed)
            assert len(trace.snapshots) == completed
            trace.close()
        shutil.rmtree(path)
    assert len(counts) > 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid():
        pytest.skip("only root can mount a small tmpfs")
    command = [mount, "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    path = str(small_disk / "t.uffd")
    completed, said = outcome(path, 3, lambda: None)
    assert 0 < completed < 40
    assert re.search("No space left on device|database or disk is full", said), said
    assert f"{completed} snapshots are in the trace; free some space" in said
    check(path, 3, completed).close()


def test_after_a_failure_nothing_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TraceWriter.create(str(tmp_path / "t"))
    mappings = [Mapping(BASE, BASE + PAGES * PAGE, 3)]
    pending = writer.begin(info(), [thread()], b"", mappings)
    pending.area(BASE, 1)
    pending.commit()
    pending = writer.begin(info(), [thread()], b"", mappings)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(UffdError, match="No space left on device; recording stops, 1 snapshot"):
        pending.put(BASE, b"x" * PAGE)
    monkeypatch.undo()
    for call in (pending.commit, lambda: writer.begin(info(), [thread()], b"", mappings)):
        with pytest.raises(UffdError, match="No space left on device"):
            call()
    writer.close()
    writer.close()
    trace = gdb_uffd.trace.open(writer.path)
    assert len(trace.snapshots) == 1
