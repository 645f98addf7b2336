"""What the writer was given is what the reader gives, in every snapshot."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import stat
import zlib
from array import array
from pathlib import Path
from typing import Dict, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_stores import BASE, PAGE, Memory, info, read_page, record, thread

import gdb_uffd.trace
from gdb_uffd.arch import X86_64
from gdb_uffd.protocol.model import Mapping, MemoryUnavailable, Registers, ThreadState, UffdError
from gdb_uffd.trace.files.files import FileRef
from gdb_uffd.trace.source import PAGES, SLOT_UNAVAILABLE, ZERO
from gdb_uffd.trace.store.page_table import CHUNK, Delta, PageArea, PageTable, TableError
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.write import TraceWriter


def open_store(path: str) -> StoreTrace:
    trace = gdb_uffd.trace.open(path)
    assert isinstance(trace, StoreTrace)
    return trace


def same(trace: StoreTrace, number: int, memory: Memory) -> None:
    """Every page of the snapshot is as in `memory`."""
    snapshot = trace.snapshot(number)
    for page in range(memory.mapped):
        expected = memory.at(page)
        if expected is None:
            with pytest.raises(MemoryUnavailable, match="could not be read when it was recorded"):
                read_page(snapshot, page)
        else:
            assert read_page(snapshot, page) == expected, (number, page)
    with pytest.raises(MemoryUnavailable, match="not mapped"):
        read_page(snapshot, memory.mapped)
    snapshot.close()


def test_every_snapshot_holds_its_memory(tmp_path: Path) -> None:
    made = record(tmp_path, snapshots=40)
    trace = open_store(made.path)
    assert len(trace.snapshots) == 40 and not trace.warnings
    for number in [*range(40), 3, 39, 0, 20, 19]:
        same(trace, number, made.memories[number])
    assert [i.pages_changed for i in trace.snapshots] == [64] + [4] * 39
    assert [i.number for i in trace.snapshots] == list(range(40))
    trace.close()


@st.composite
def histories(draw: st.DrawFn) -> list:
    """Snapshots, each a list of what happens to the pages."""
    numbers = st.integers(0, 63)
    contents = st.integers(0, 3)  # few: pages are equal often, and zero
    change = st.one_of(
        st.tuples(st.just("put"), numbers, st.lists(contents, min_size=1, max_size=6)),
        st.tuples(st.just("area"), numbers, st.integers(1, 64)),
        st.tuples(st.just("forget"), numbers, st.integers(1, 64)),
        st.tuples(st.just("lost"), numbers, st.integers(1, 4)),
    )
    return draw(st.lists(st.lists(change, max_size=6), min_size=1, max_size=9))


def content(kind: int) -> bytes:
    return bytes([kind]) * PAGE


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories(), abandoned=st.sets(st.integers(0, 8)))
def test_random_histories(
    tmp_path_factory: pytest.TempPathFactory, history: list, abandoned: set
) -> None:
    folder = tmp_path_factory.mktemp("h")
    recorded: Dict[int, bool] = dict.fromkeys(range(64), False)
    memory = Memory()
    memories = []
    with TraceWriter.create(str(folder / "t")) as writer:
        for number, changes in enumerate(history):
            before = copy.deepcopy(memory), dict(recorded)
            pending = writer.begin(info(), [thread(seed=number)], b"", memory.mappings())
            for kind, page, what in changes:
                if kind == "put":
                    pages = list(range(page, min(64, page + len(what))))
                    if not all(recorded[p] for p in pages):
                        with pytest.raises(ValueError, match="in no area"):
                            pending.put(BASE + pages[0] * PAGE, b"x" * PAGE * len(pages))
                        # What came before the page without an area was put.
                        for p in pages:
                            if not recorded[p]:
                                break
                            memory.pages[p] = b"x" * PAGE
                        continue
                    pending.put(
                        BASE + page * PAGE, b"".join(content(w) for w in what[: len(pages)])
                    )
                    for p, w in zip(pages, what):
                        memory.pages[p] = content(w)
                    continue
                end = min(64, page + what)
                if kind == "area":
                    pending.area(BASE + page * PAGE, end - page)
                elif kind == "forget":
                    pending.forget(BASE + page * PAGE, BASE + end * PAGE)
                elif not all(recorded[p] for p in range(page, end)):
                    continue
                else:
                    pending.unavailable(BASE + page * PAGE, end - page)
                for p in range(page, end):
                    memory.pages.pop(p, None)
                    if kind == "lost":
                        memory.pages[p] = None
                    recorded[p] = kind != "forget"
            if number in abandoned:
                pending.abandon()
                memory, recorded = before
            else:
                pending.commit()
                memories.append(copy.deepcopy(memory))
    if not memories:
        with pytest.raises(UffdError, match="no snapshot was completed"):
            open_store(writer.path)
        return
    trace = open_store(writer.path)
    for number, expected in enumerate(memories):
        same(trace, number, expected)
    for a in range(len(memories)):
        b = len(memories) - 1 - a
        expected = [BASE + p * PAGE for p in range(64) if memories[a].at(p) != memories[b].at(p)]
        assert trace.changed_pages(a, b) == expected
    for number in range(1, len(memories)):
        changed = trace.changed_pages(number - 1, number)
        assert trace.snapshots[number].pages_changed >= len(changed) - 64
    trace.close()


def test_equal_pages_are_stored_once_and_zeros_not_at_all(tmp_path: Path) -> None:
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(info(), [thread()], b"", Memory().mappings())
        pending.area(BASE, 64)
        pending.put(BASE, content(1) * 20 + content(0) * 20 + content(2) * 20)
        pending.commit()
        assert writer.pages_stored == 2
        pending = writer.begin(info(), [thread()], b"", Memory().mappings())
        pending.put(BASE, content(2) * 2)
        pending.put(BASE + 9 * PAGE, content(1))  # as it was
        pending.commit()
        assert writer.pages_stored == 2
    trace = open_store(writer.path)
    assert trace.snapshots[1].pages_changed == 2
    assert os.path.getsize(f"{writer.path}/pages") == 3 * PAGE
    assert trace.changed_pages(0, 1) == [BASE, BASE + PAGE]


def test_pages_with_the_same_checksum_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than places are tried for one checksum."""
    from gdb_uffd.trace.store import page_file, page_read

    class Weak:
        crc32 = staticmethod(lambda data, start=0: 5 if data[:1] != b"\0" else 6)

    monkeypatch.setattr(page_file, "zlib", Weak)
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pages = [bytes([1, i]) + bytes(PAGE - 2) for i in range(2 * page_file.PROBES)]
        for _ in range(2):
            pending = writer.begin(info(), [thread()], b"", [Mapping(BASE, BASE + 128 * PAGE, 3)])
            pending.area(BASE, 128)
            pending.put(BASE, b"".join(pages))
            pending.commit()
    monkeypatch.setattr(page_read, "zlib", Weak)
    trace = open_store(writer.path)
    for number in range(2):
        assert trace.snapshot(number).read(BASE, 128 * PAGE) == b"".join(pages)


@pytest.mark.parametrize("before", [3, 3000], ids=["few pages", "a table that has grown"])
def test_after_a_write_that_failed_pages_are_found_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    from gdb_uffd.trace.store import page_file

    def page(number: int) -> bytes:
        return number.to_bytes(4, "little") * (PAGE // 4)

    def store(*numbers: int) -> List[int]:
        data = memoryview(b"".join(page(n) for n in numbers))
        return list(pages.store(data, array("I", [0] * len(numbers))))

    def full(fd: int, data: object, offset: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("pages", "sums")]
    pages = page_file.PageFile(*fds)
    pages.start(page_file.header_page(1, bytes(16)))
    first = store(*range(1, before + 1))
    for _ in range(3):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
            patched.setattr(page_file, "write_all", full)
            store(*range(before + 1, before + 2000))
        assert pages.count == before + 1
    assert store(*range(1, before + 1)) == first
    again = store(before + 2, 1, before + 1)
    assert again == [before + 1, first[0], before + 2]
    for slot, number in zip(again, (before + 2, 1, before + 1)):
        assert os.pread(fds[0], PAGE, slot * PAGE) == page(number)
    pages.flush()
    sums = array("I", (tmp_path / "sums").read_bytes())
    assert list(sums[1:3]) == [zlib.crc32(page(n)) for n in (1, 2)] and len(sums) == before + 3
    for fd in fds:
        os.close(fd)


def test_threads_registers_and_facts(tmp_path: Path) -> None:
    threads = [
        ThreadState(
            100 + i,
            Registers([(i << 40) + j for j in range(27)], os.urandom(2696), 0x2E7, X86_64),
            signal=i % 3,
            siginfo=os.urandom(128) if i % 2 else b"",
            sigmask=(1 << 64) - 1 - i,
            name=f"thread-{i}-ü",
        )
        for i in range(20)
    ]
    auxv = os.urandom(320)
    facts = info(
        "a label, “quoted”\n", time_ns=1 << 60, monotonic_ns=5, function="f(int)", pause_us=7,
        signal=11, thread_name="thread-0-ü",
    )  # fmt: skip
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(facts, threads, auxv, Memory().mappings())
        pending.commit()
        pending = writer.begin(facts, threads[::-1], auxv, Memory().mappings())
        pending.commit()
    trace = open_store(writer.path)
    first, second = trace.snapshot(0), trace.snapshot(1)
    assert first.threads == threads and second.threads == threads[::-1]
    assert first.auxv == auxv and first.pid == 77
    assert first.thread(105) == threads[5]
    got = trace.snapshots[0]
    assert (got.label, got.time_ns, got.function) == (facts.label, 1 << 60, "f(int)")
    assert (got.threads, got.pause_us, got.signal) == (20, 7, 11)
    first.threads[0].registers.gpr[0] = 1  # somebody's own copy
    assert trace.snapshot(0).threads == threads


def test_texts_that_are_no_unicode(tmp_path: Path) -> None:
    path = "/tmp/\udcff\udc80 file"
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        mappings = [Mapping(BASE, BASE + PAGE, 1, path, 0)]
        facts = info("\udcff" + "x" * 9999)
        pending = writer.begin(facts, [thread(name="\udc80")], b"", mappings, {path: FileRef(b"1")})
        pending.commit()
    trace = open_store(writer.path)
    assert trace.snapshots[0].label.startswith("\\udcffxxx")
    assert trace.layout(trace.row(0)).mappings[0].name == path
    (mapping,) = trace.snapshot(0).mappings
    assert mapping.name == "/tmp/\\377\\200 file" and "no such file" in mapping.unavailable


def test_finding_snapshots(tmp_path: Path) -> None:
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        for label in ("one", "twice", "twice", "", "2"):
            writer.begin(info(label), [thread()], b"", Memory().mappings()).commit()
    trace = open_store(writer.path)
    for name, number in (("start", 0), ("end", 4), ("one", 0), ("3", 3), (" 4 ", 4), ("2", 2)):
        assert trace.find(name) == number
    for name, message in (
        ("5", "no snapshot 5: 0 to 4"),
        ("9" * 40, "no snapshot 9+: 0 to 4"),
        ("twice", r"2 snapshots have the label 'twice' \(1, 2\)"),
        ("none", r"no snapshot 'none': give a number \(0 to 4\), a label, start or end"),
        ("", "no snapshot ''"),
    ):
        with pytest.raises(UffdError, match=message):
            trace.find(name)
    for number in (-1, 5, 1 << 70):
        with pytest.raises(UffdError, match=r"no snapshot .*: 0 to 4"):
            trace.snapshot(number)


def test_areas_larger_than_memory_cost_nothing(tmp_path: Path) -> None:
    size = 1 << 44
    base = 0x100000000000
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        mappings = [Mapping(base, base + size, 3)]
        pending = writer.begin(info(), [thread()], b"", mappings)
        pending.area(base, size // PAGE)
        for at in (0, CHUNK - PAGE, size - PAGE):
            pending.put(base + at, content(7))
        pending.put(base + CHUNK * 5 - PAGE, content(8) * 2)
        pending.commit()
        pending = writer.begin(info(), [thread()], b"", mappings)
        pending.put(base + size // 2, content(9))
        pending.commit()
    assert os.path.getsize(f"{writer.path}/index.sqlite") < 400_000
    trace = open_store(writer.path)
    last = trace.snapshot(1)
    assert last.read(base, PAGE) == last.read(base + size - PAGE, PAGE) == content(7)
    assert last.read(base + CHUNK * 5 - PAGE, 3 * PAGE) == content(8) * 2 + content(0)
    assert last.read(base + size // 2, PAGE) == content(9)
    assert last.read(base + size // 4, PAGE) == content(0)
    assert trace.changed_pages(0, 1) == [base + size // 2]
    assert [i.pages_changed for i in trace.snapshots] == [5, 1]


def test_what_lies_where(tmp_path: Path) -> None:
    """Recorded pages win over the file; memory without area is zeros, or unavailable."""
    library = tmp_path / "data"
    library.write_bytes(os.urandom(3 * PAGE + 5))
    status = library.stat()
    files = {str(library): FileRef(b"", status.st_size, status.st_mtime_ns)}
    at = BASE
    mappings = [
        Mapping(at, at + 4 * PAGE, 3, str(library), 0),
        Mapping(at + 4 * PAGE, at + 6 * PAGE, 3, ""),
        Mapping(at + 8 * PAGE, at + 9 * PAGE, 1, "[vvar]"),
        Mapping(at + 9 * PAGE, at + 10 * PAGE, 5, "[vdso]"),
        Mapping(at + 10 * PAGE, at + 11 * PAGE, 3, "anon_inode:[perf]"),
        Mapping(at + 11 * PAGE, at + 12 * PAGE, 1, "", 0, "a device"),
        Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 5, "[vsyscall]"),
    ]
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(info(), [thread()], b"", mappings, files)
        pending.area(at + PAGE, 1)
        pending.put(at + PAGE, content(3))
        pending.area(at + 5 * PAGE, 4)
        pending.put(at + 5 * PAGE, content(4))
        pending.commit()
    snapshot = open_store(writer.path).snapshot(0)
    raw = library.read_bytes()
    assert snapshot.read(at, PAGE) == raw[:PAGE]
    assert snapshot.read(at + PAGE, PAGE) == content(3)
    assert snapshot.read(at + 2 * PAGE, 2 * PAGE) == raw[2 * PAGE :].ljust(2 * PAGE, b"\0")
    assert snapshot.read(at + 4 * PAGE, 2 * PAGE) == content(0) + content(4)
    assert snapshot.read(at + 8 * PAGE, PAGE) == content(0)  # recorded, though it is [vvar]
    for page, reason in (
        (6, "not mapped"),
        (9, "vdso.*not recorded"),
        (10, "not rec"),
        (11, "a d"),
    ):
        with pytest.raises(MemoryUnavailable, match=reason):
            snapshot.read(at + page * PAGE, 1)
    assert [m.name for m in snapshot.mappings][-1] != "[vsyscall]"
    for mapping in snapshot.mappings:
        inside = [s for s in snapshot.segments if mapping.start <= s.start < mapping.end]
        assert inside[0].start == mapping.start and inside[-1].end == mapping.end
        assert all(a.end == b.start for a, b in zip(inside, inside[1:]))
    os.utime(library, ns=(1, 1))
    changed = open_store(writer.path).snapshot(0)
    with pytest.raises(MemoryUnavailable, match="not the file that was mapped"):
        changed.read(at, 1)
    assert changed.read(at + PAGE, PAGE) == content(3)
    assert "not the file that was mapped" in changed.warnings[0]


def test_segments_of_a_trace(tmp_path: Path) -> None:
    made = record(tmp_path, snapshots=2, pages=8)
    trace = open_store(made.path)
    snapshot = trace.snapshot(1)
    (segment,) = snapshot.segments
    assert segment.kind == PAGES and len(segment.slots) == 8
    for i, slot in enumerate(segment.slots):
        page = bytes(segment.data[slot * PAGE : (slot + 1) * PAGE])
        assert page == made.memories[1].at(i)
    trace.close()
    assert read_page(snapshot, 3) == made.memories[1].at(3)  # still open, still usable
    snapshot.close()
    with pytest.raises(MemoryUnavailable, match="not mapped"):
        read_page(snapshot, 3)


def test_private_files_and_names(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = record(tmp_path, snapshots=1)
    finally:
        os.umask(old)
    assert made.path == str(tmp_path / "t.uffd")
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700
    names = sorted(os.listdir(made.path))
    assert names == ["index.sqlite", "pages", "sums"]
    for name in names:
        assert stat.S_IMODE(os.stat(f"{made.path}/{name}").st_mode) == 0o600
    assert os.listdir(tmp_path) == ["t.uffd"]


def test_an_existing_path_is_left_alone(tmp_path: Path) -> None:
    for make in (Path.mkdir, Path.touch, lambda p: p.symlink_to("nowhere")):
        target = tmp_path / "x.uffd"
        make(target)
        with pytest.raises(UffdError, match=r"x\.uffd: exists already"):
            TraceWriter.create(str(tmp_path / "x"))
        assert os.listdir(tmp_path) == ["x.uffd"]
        target.rmdir() if target.is_dir() else target.unlink()
    with pytest.raises(UffdError, match=r"cannot be made \(No such file"):
        TraceWriter.create(str(tmp_path / "absent" / "x"))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        with pytest.raises(UffdError, match="cannot be written"):
            TraceWriter(writer.path, False)
        fd = os.open(writer.path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(fd)


def test_reading_while_it_is_written(tmp_path: Path) -> None:
    memory = Memory()
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        for number in range(6):
            pending = writer.begin(info(), [thread(seed=number)], b"", memory.mappings())
            if number == 0:
                pending.area(BASE, 64)
            memory.pages[number] = content(number + 1)
            pending.put(BASE + number * PAGE, content(number + 1))
            with pytest.raises(UffdError, match="a snapshot is being written"):
                writer.begin(info(), [thread()], b"", memory.mappings())
            assert pending.commit() == number
            trace = open_store(writer.path)
            assert len(trace.snapshots) == number + 1
            same(trace, number, memory)
            trace.close()
        assert pending.info.number == 5
        with pytest.raises(UffdError, match="committed or abandoned"):
            pending.commit()
    with pytest.raises(UffdError, match="the trace is closed"):
        writer.begin(info(), [thread()], b"", memory.mappings())
    writer.close()


def file_states(path: str) -> list:
    return [(e.name, e.stat().st_mtime_ns, e.stat().st_size) for e in os.scandir(path)]


def test_the_reader_writes_nothing(tmp_path: Path) -> None:
    """Neither to a finished trace nor to one whose writer was killed."""
    import shutil

    finished = record(tmp_path, name="a")
    with TraceWriter.create(str(tmp_path / "b")) as writer:
        pending = writer.begin(info(), [thread()], b"", Memory().mappings())
        pending.area(BASE, 64)
        pending.put(BASE, content(5))
        pending.commit()
        killed = str(tmp_path / "killed.uffd")
        shutil.copytree(writer.path, killed)
    assert os.path.getsize(f"{killed}/index.sqlite-wal") > 0
    for path in (finished.path, killed):
        before = file_states(path)
        for entry in os.scandir(path):
            os.chmod(entry.path, 0o400)
        os.chmod(path, 0o500)
        trace = open_store(path)
        trace.snapshot(0).read(BASE, PAGE)
        trace.close()
        assert file_states(path) == before
        os.chmod(path, 0o700)
    assert open_store(killed).snapshot(0).read(BASE, PAGE) == content(5)


def test_page_tables_encode_and_decode() -> None:
    delta = Delta(
        forget=[(PAGE, 3 * PAGE)],
        areas=[
            PageArea(8 * PAGE, 9 * PAGE, array("I", [4])),
            PageArea(16 * PAGE, 1 << 40, None),
        ],
        pages=array("Q", [PAGE * 8]),
        slots=array("I", [SLOT_UNAVAILABLE]),
    )
    blob = delta.encode()
    assert Delta.decode(blob) == delta
    for cut in range(len(blob)):
        with pytest.raises(TableError):
            Delta.decode(blob[:cut])
    table = PageTable()
    table.apply(delta)
    assert table.slot(8 * PAGE) == SLOT_UNAVAILABLE and table.slot(1 << 39) == 0
    assert table.slot(1 << 40) is None
    other = table.copy()
    other.apply(Delta(pages=array("Q", [8 * PAGE]), slots=array("I", [9])))
    assert (table.slot(8 * PAGE), other.slot(8 * PAGE)) == (SLOT_UNAVAILABLE, 9)
    with pytest.raises(TableError, match="lies in no area"):
        other.apply(Delta(pages=array("Q", [16 * PAGE]), slots=array("I", [9])))
    assert [a.slots is None for a in table.keyframe().areas] == [False, True]


def test_neighbours_are_joined_in_a_keyframe() -> None:
    table = PageTable()
    for start in range(1, 9):
        table.add(PageArea(start * PAGE, (start + 1) * PAGE, array("I", [start])))
    table.add(PageArea(3 * PAGE, 5 * PAGE, None))
    joined = table.keyframe().areas
    assert [(a.start // PAGE, a.end // PAGE) for a in joined] == [(1, 3), (3, 5), (5, 9)]
    assert list(joined[2].slots or []) == [5, 6, 7, 8]
    assert table.slot(2 * PAGE) == 2 and table.slot(4 * PAGE) == 0


def test_an_area_that_is_all_zeros_is_a_zero_segment(tmp_path: Path) -> None:
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(info(), [thread()], b"", Memory().mappings())
        pending.area(BASE, 64)
        pending.commit()
    assert [s.kind for s in open_store(writer.path).snapshot(0).segments] == [ZERO]
