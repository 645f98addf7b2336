"""Damaged and hostile cores: one clear line or the truth, never other errors or wrong bytes."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_cores import (
    PAGE,
    Load,
    Told,
    auxv,
    core,
    gcore_told,
    kernel_told,
    note,
    nt_file,
    prpsinfo,
    prstatus,
    simple,
)

from gdb_uffd.arch import KNOWN
from gdb_uffd.protocol.model import GPR, MemoryUnavailable, UffdError
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.source import UNAVAILABLE

SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=["kernel", "gcore"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp(request.param)
    return kernel_told(folder) if request.param == "kernel" else gcore_told(folder)


@pytest.fixture(scope="module")
def whole(told: Told) -> Iterator[CoreSnapshot]:
    snapshot = open_core(str(told.core))
    yield snapshot
    snapshot.close()


def use_everything(snapshot: CoreSnapshot) -> None:
    """Touch every public part; only UffdError may come out of it."""
    for m in snapshot.mappings:
        for address in (m.start, m.end - 1, (m.start + m.end) // 2):
            snapshot.classify(address)
            try:
                assert len(snapshot.read(address, 1)) == 1
            except MemoryUnavailable as error:
                assert error.reason
    for name in ("main", "__curbrk", "malloc", "no_such"):
        snapshot.symbol(name)
    for thread in snapshot.threads[:8]:
        assert len(thread.registers.gpr) == 27
        for link_map in (0, snapshot.mappings[0].start, 1 << 63):
            try:
                fs_base = thread.registers.gpr[GPR["fs_base"]]
                snapshot.tls_address(thread.tid, 8, link_map, fs_base, snapshot.read)
            except UffdError:
                pass
    for line in snapshot.warnings:
        assert "\n" not in line


def open_bytes(folder: Path, raw: bytes) -> CoreSnapshot:
    path = folder / "made.core"
    path.write_bytes(raw)
    return open_core(str(path))


@pytest.mark.slow
@SLOW
@given(data=st.data())
def test_truncated_anywhere(
    told: Told, whole: CoreSnapshot, tmp_path: Path, data: st.DataObject
) -> None:
    size = told.core.stat().st_size
    near = st.integers(0, 24 << 10)
    length = data.draw(st.one_of(near, near.map(lambda n: size - 1 - n), st.integers(0, size - 1)))
    cut = tmp_path / "cut.core"
    with told.core.open("rb") as f:
        cut.write_bytes(f.read(length))
    os.utime(cut, (told.core.stat().st_mtime,) * 2)
    try:
        snapshot = open_core(str(cut))
    except UffdError as error:
        assert str(cut) in str(error) and "\n" not in str(error)
        return
    try:
        use_everything(snapshot)
        lost = False
        for m in whole.mappings:
            for address in {m.start, (m.start + m.end) // 2 & ~4095, m.end - PAGE}:
                try:
                    found = snapshot.read(address, PAGE)
                except MemoryUnavailable:
                    lost = lost or not m.unavailable
                    continue
                assert found == whole.read(address, PAGE), hex(address)
        # What comes last, [vsyscall] and gcore's section headers, nobody misses.
        assert any("truncated" in w for w in snapshot.warnings) or not lost
    finally:
        snapshot.close()


def test_pages_before_the_cut_still_serve(told: Told, whole: CoreSnapshot, tmp_path: Path) -> None:
    if told.core.name != "core":
        pytest.skip("gcore writes its notes last: a truncated one has no threads")
    stack = next(s for s in whole.segments if s.data is whole.core and s.end - s.start > 8192)
    cut = tmp_path / "cut.core"
    cut.write_bytes(told.core.read_bytes()[: stack.offset + PAGE + 100])
    snapshot = open_core(str(cut))
    assert snapshot.read(stack.start, PAGE) == whole.read(stack.start, PAGE)
    with pytest.raises(MemoryUnavailable, match="truncated core"):
        snapshot.read(stack.start + PAGE, 1)
    with pytest.raises(MemoryUnavailable, match="truncated core"):
        snapshot.read(stack.start + PAGE - 1, 2)
    assert any(re.search(r"truncated core: \d+ of \d+ bytes", w) for w in snapshot.warnings)
    snapshot.close()


@SLOW
@given(
    changes=st.dictionaries(
        st.integers(0, 40 << 10), st.binary(min_size=1, max_size=8), min_size=1, max_size=12
    )
)
def test_bytes_changed_in_headers_and_notes(told: Told, changes: Dict[int, bytes]) -> None:
    size = told.core.stat().st_size
    notes_last = told.core.name != "core"
    places = {(size - at if notes_last and at > 2048 else at): new for at, new in changes.items()}
    with told.core.open("r+b") as f:
        before = {at: os.pread(f.fileno(), len(new), at) for at, new in places.items()}
        try:
            for at, new in places.items():
                os.pwrite(f.fileno(), new[: len(before[at])], at)
            try:
                snapshot = open_core(str(told.core))
            except UffdError as error:
                assert "\n" not in str(error)
                return
            use_everything(snapshot)
            snapshot.close()
        finally:
            for at, old in before.items():
                os.pwrite(f.fileno(), old, at)


u64 = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(
        [0, 1, 4096, 0x10000, 0x11000, (1 << 47) - 4096, 1 << 47, 1 << 63, (1 << 64) - 1]
    ),
)


@SLOW
@given(
    headers=st.lists(st.tuples(st.integers(0, 8), u64, u64, u64, u64), max_size=6),
    raw_notes=st.binary(max_size=200),
    kinds=st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 6, 0x202, 0x205, 0x46494C45, 0x53494749]),
            st.binary(max_size=700),
        ),
        max_size=6,
    ),
    xnum=st.booleans(),
)
def test_made_up_headers_and_notes(
    tmp_path: Path,
    headers: list[Tuple[int, int, int, int, int]],
    raw_notes: bytes,
    kinds: list[Tuple[int, bytes]],
    xnum: bool,
) -> None:
    notes = prstatus(7) + b"".join(note(b"CORE", k, d) for k, d in kinds) + raw_notes
    raw = bytearray(core(notes, [Load(0x10000, b"p" * PAGE)] * (len(headers) + 1), xnum=xnum))
    for i, (flags, offset, vaddr, filesz, memsz) in enumerate(headers):
        at = 64 + 56 * (i + 2)
        struct.pack_into("<IIQQQQQQ", raw, at, 1, flags, offset, vaddr, 0, filesz, memsz, 4096)
    try:
        snapshot = open_bytes(tmp_path, bytes(raw))
    except UffdError as error:
        assert "\n" not in str(error)
        return
    use_everything(snapshot)
    ends = 0
    for s in snapshot.segments:
        assert ends <= s.start < s.end <= 1 << 47
        ends = s.end
    snapshot.close()


@SLOW
@given(
    st.lists(st.tuples(u64, u64, u64), max_size=8),
    st.sampled_from([0, 1, 4096, 1 << 40, (1 << 64) - 1]),
    st.sampled_from([0, 1, -1, 1 << 60]),
)
def test_made_up_file_notes(
    tmp_path: Path, table: list[Tuple[int, int, int]], unit: int, more: int
) -> None:
    body = struct.pack("<QQ", (len(table) + more) & (1 << 64) - 1, unit)
    body += b"".join(struct.pack("<QQQ", *t) for t in table) + b"/etc/passwd\0" * len(table)
    snapshot = open_bytes(tmp_path, simple(note(b"CORE", 0x46494C45, body)))
    use_everything(snapshot)
    snapshot.close()


def test_overlapping_loads_are_clipped(tmp_path: Path) -> None:
    loads = [
        Load(0x12000, b"b" * 2 * PAGE),
        Load(0x10000, b"a" * 3 * PAGE),
        Load(0x11000, b"c" * PAGE),
    ]
    snapshot = open_bytes(tmp_path, simple(b"", loads))
    assert snapshot.read(0x10000, 4 * PAGE) == b"a" * 3 * PAGE + b"b" * PAGE
    assert any("overlap" in w for w in snapshot.warnings)


def test_what_is_not_user_memory_is_dropped(tmp_path: Path) -> None:
    loads = [Load(0x10000, b"a" * PAGE), Load(0xFFFFFFFFFF600000, b"v" * PAGE)]
    snapshot = open_bytes(tmp_path, simple(b"", loads))
    assert [m.start for m in snapshot.mappings] == [0x10000]


def test_without_a_file_note_nothing_is_made_up(tmp_path: Path) -> None:
    snapshot = open_bytes(tmp_path, simple(b"", [Load(0x10000, b"a" * PAGE, memsz=2 * PAGE)]))
    with pytest.raises(MemoryUnavailable, match="NT_FILE"):
        snapshot.read(0x11000, 1)
    assert any("NT_FILE" in w for w in snapshot.warnings)


def test_core_without_anonymous_memory(tmp_path: Path) -> None:
    loads = [Load(0x10000, b"", memsz=4 * PAGE), Load(0x20000, b"", memsz=PAGE)]
    raw = core(prstatus(5, rsp=0x12000) + nt_file([]), loads)
    snapshot = open_bytes(tmp_path, raw)
    with pytest.raises(MemoryUnavailable, match="coredump_filter"):
        snapshot.read(0x20000, 1)
    assert any("coredump_filter" in w for w in snapshot.warnings)


def test_duplicate_threads_are_named(tmp_path: Path) -> None:
    raw = core(
        prstatus(5) + prstatus(6) + prstatus(5) + prpsinfo(5, b"x"), [Load(0x10000, b"a" * PAGE)]
    )
    snapshot = open_bytes(tmp_path, raw)
    assert [t.tid for t in snapshot.threads] == [5, 6]
    assert any("duplicate" in w for w in snapshot.warnings)


@pytest.mark.slow
def test_more_segments_than_a_header_can_count(tmp_path: Path) -> None:
    loads = [Load(0x100000 + 2 * PAGE * i, b"", memsz=PAGE, flags=6) for i in range(0xFFFF)]
    loads.append(Load(0x10000, b"Z" * PAGE))
    raw = core(prstatus(5) + nt_file([]), loads, xnum=True)
    snapshot = open_bytes(tmp_path, raw)
    assert len(snapshot.mappings) == 0x10000
    assert snapshot.read(0x10000, 1) == b"Z"
    assert snapshot.warnings == []
    lost = open_bytes(tmp_path, raw[:-64])  # section 0, which has the count, is cut off
    assert len(lost.mappings) == 0x10000
    assert any("truncated" in w for w in lost.warnings)


def test_many_threads(tmp_path: Path) -> None:
    notes = b"".join(prstatus(tid) for tid in range(1, 65536 + 100))
    snapshot = open_bytes(tmp_path, core(notes + nt_file([]), [Load(0x10000, b"a" * PAGE)]))
    assert len(snapshot.threads) == 65536 + 99
    assert snapshot.thread(65536).tid == 65536


def test_four_gib_core_is_not_read(tmp_path: Path) -> None:
    size = 4 << 30
    raw = core(prstatus(5) + nt_file([]), [Load(0x100000, b"", memsz=size, filesz=size)])
    path = tmp_path / "sparse.core"
    path.write_bytes(raw)
    with path.open("r+b") as f:
        f.truncate(len(raw) + size + PAGE)
    snapshot = open_core(str(path))
    assert snapshot.warnings == []
    smaps = Path("/proc/self/smaps").read_text()
    (resident,) = re.findall(re.escape(str(path)) + r"\n(?:.*\n)*?Rss: +(\d+) kB", smaps)
    assert int(resident) <= 1024  # fault-around brings neighbours of what was read
    assert snapshot.read(0x100000 + size - PAGE, PAGE) == bytes(PAGE)
    snapshot.close()


def _not_cores(folder: Path) -> Iterator[Tuple[Path, str]]:
    yield folder / "absent", "no such file.*uffd spawn CORE"
    yield folder, "is a directory"
    yield Path("/dev/null"), "not a regular file"
    yield (
        Path("/bin/sh"),
        r"is an executable or library, not a core: uffd spawn CORE \[EXECUTABLE\]",
    )
    for name, raw, expected in [
        ("empty", b"", "empty file"),
        ("short", b"\x7fEL", "not an ELF file"),
        ("text", b"#!/bin/sh\n" * 30, "not an ELF file"),
        (
            "packed",
            b"\x28\xb5\x2f\xfd" + bytes(99),
            "(damaged|truncated).*zstd data.*get it again",
        ),
        ("header", b"\x7fELF\x02\x01\x01", "lie outside it"),
        ("thirty-two", b"\x7fELF\x01\x01\x01".ljust(64, b"\0"), "32-bit, little-endian"),
        ("big", b"\x7fELF\x02\x02\x01".ljust(64, b"\0"), "64-bit, big-endian"),
        ("empty-core", core(b"", []), "no thread in it"),
        ("no-memory", core(prstatus(1), []), "no memory in it"),
    ]:
        path = folder / name
        path.write_bytes(raw)
        yield path, expected
    power = bytearray(simple())
    power[18] = 21  # EM_PPC64
    (folder / "power").write_bytes(power)
    yield (
        folder / "power",
        f"a core of PowerPC 64 .64-bit, little.*not {KNOWN}; .* gdb for",
    )
    for name, order, wide, machine, expected in [
        ("i386", "<", 1, 3, "no thread in it"),
        ("x32", "<", 1, 62, "no thread in it"),
        ("s390x", ">", 2, 22, r"a core of S/390 \(64-bit, big-endian\), not"),
        ("mips", ">", 1, 8, r"a core of MIPS \(32-bit, big-endian\), not"),
        ("new", "<", 1, 999, "a core of an unknown processor, e_machine 999 .*, not"),
    ]:
        ident = b"\x7fELF" + bytes([wide, 1 if order == "<" else 2, 1])
        header = ident.ljust(16, b"\0") + struct.pack(order + "HH", 4, machine)
        (folder / name).write_bytes(header.ljust(64, b"\0"))
        yield folder / name, expected
    relocatable = bytearray(simple())
    relocatable[16] = 1
    (folder / "object").write_bytes(relocatable)
    yield folder / "object", "not a core"
    os.mkfifo(folder / "fifo")
    yield folder / "fifo", "not a regular file"


def test_what_is_no_core_gets_one_clear_line(tmp_path: Path) -> None:
    for path, expected in _not_cores(tmp_path):
        with pytest.raises(UffdError, match=expected) as caught:
            open_core(str(path))
        text = str(caught.value)
        assert text.startswith(str(path)) and "\n" not in text, text
        assert ";" in text or "uffd spawn" in text, text
    with pytest.raises(UffdError):
        open_core("a\0b")


def test_no_segment_is_unavailable_without_a_reason(tmp_path: Path) -> None:
    raw = simple(nt_file([(0x30000, 0x32000, 0, "/no/such/file")]) + auxv((9, 0x30010)))
    snapshot = open_bytes(tmp_path, raw)
    assert all(s.reason for s in snapshot.segments if s.kind == UNAVAILABLE)
    assert snapshot.executable == ""
