"""Cores into traces and snapshots into cores: nothing is lost on the way."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from harness import gdbs
from trace_cores import PAGE, Load, Told, auxv, core, gcore_told, kernel_told, nt_file, prstatus
from trace_stores import BASE, info, thread

import gdb_uffd.trace
from gdb_uffd.protocol.model import Mapping, MemoryUnavailable, UffdError
from gdb_uffd.trace.core.core_write import write_core
from gdb_uffd.trace.store.export import export_snapshot
from gdb_uffd.trace.store.importing import import_cores
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.write import TraceWriter


@pytest.fixture(scope="module", params=["kernel", "gcore"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp(request.param)
    return kernel_told(folder) if request.param == "kernel" else gcore_told(folder)


@pytest.fixture(scope="module")
def imported(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreTrace]:
    done = import_cores([str(told.core)], str(tmp_path_factory.mktemp("i") / "t"))
    trace = gdb_uffd.trace.open(done.path)
    assert isinstance(trace, StoreTrace)
    yield trace
    trace.close()


def same_snapshots(one: Any, two: Any, names: bool = True) -> None:
    """All that a snapshot offers, the same in both."""
    assert (one.pid, one.auxv, one.executable) == (two.pid, two.auxv, two.executable)
    assert one.threads == two.threads
    assert [(m.start, m.end, m.prot) for m in one.mappings] == [
        (m.start, m.end, m.prot) for m in two.mappings
    ]
    if names:
        assert [(m.name, m.offset) for m in one.mappings] == [
            (m.name, m.offset) for m in two.mappings
        ]
    for mapping in one.mappings:
        for page in range(mapping.start, mapping.end, PAGE):
            assert outcome(one, page) == outcome(two, page), hex(page)
    for name in ("malloc", "main", "data_value", "__curbrk", "_thread_db_sizeof_pthread", "none"):
        assert one.symbol(name) == two.symbol(name)


def outcome(snapshot: Any, page: int) -> Any:
    try:
        return snapshot.read(page, PAGE)
    except MemoryUnavailable:
        return None


def test_an_imported_core_is_the_core(told: Told, imported: StoreTrace) -> None:
    original = gdb_uffd.trace.open(str(told.core)).snapshot(0)
    snapshot = imported.snapshot(0)
    same_snapshots(original, snapshot)
    assert [m.unavailable for m in original.mappings] == [m.unavailable for m in snapshot.mappings]
    for places in told.said.values():
        for tid, address in places.items():
            assert snapshot.classify(address) == original.classify(address), (tid, hex(address))
    for t in original.threads:
        fs_base = t.registers.gpr[21]
        ask = (t.tid, 0, 0, fs_base)
        assert snapshot.tls_address(*ask, snapshot.read) == original.tls_address(
            *ask, original.read
        )
    segment = next(s for s in snapshot.segments if s.patch is not None)
    assert segment.patch == next(s for s in original.segments if s.patch is not None).patch
    facts = imported.snapshots[0]
    assert facts.label == told.core.name and facts.threads == 3
    assert facts.time_ns == told.core.stat().st_mtime_ns


def test_an_exported_snapshot_is_the_snapshot(imported: StoreTrace, tmp_path: Path) -> None:
    snapshot = imported.snapshot(0)
    path = str(tmp_path / "x.core")
    done = export_snapshot(snapshot, path)
    assert done.unavailable_pages == sum(
        outcome(snapshot, page) is None
        for m in snapshot.mappings
        if not m.name.startswith("[vvar")
        for page in range(m.start, m.end, PAGE)
    )
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x.core"]
    assert os.stat(path).st_size == done.size and os.stat(path).st_blocks * 512 < 4 << 20
    again = gdb_uffd.trace.open(path)
    same_snapshots(snapshot, again.snapshot(0))
    with pytest.raises(UffdError, match="exists already"):
        export_snapshot(snapshot, path)


@pytest.mark.parametrize("gdb", gdbs.present(), ids=gdbs.label)
def test_stock_gdb_shows_the_same(
    told: Told, imported: StoreTrace, tmp_path: Path, gdb: str
) -> None:
    path = str(tmp_path / "x.core")
    export_snapshot(imported.snapshot(0), path)
    # Not the extended ones: gdb cannot make them out of every kernel's core.
    registers = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags"
    commands = [
        "info threads", "thread apply all bt", f"thread apply all info registers {registers}",
        "thread apply all info registers cs ss fs_base gs_base fctrl mxcsr xmm0", "print tls_value",
        "print data_value", "print $_siginfo.si_signo", "info auxv", "x/300xb &bss_value",
        "thread 3", "print tls_value", "x/40i $pc", "info sharedlibrary",
    ]  # fmt: skip

    def ask(file: object) -> List[str]:
        arguments = [x for c in commands for x in ("-ex", c)]
        done = subprocess.run(
            [gdb, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", *arguments,
             str(told.program), str(file)],
            capture_output=True, env=gdbs.environment(tmp_path), text=True,
        )  # fmt: skip
        complaints = [x for x in done.stderr.splitlines() if "No such file" not in x and x]
        assert not complaints or file == told.core, complaints
        return [line for line in done.stdout.splitlines() if "Core was generated" not in line]

    theirs, ours = ask(told.core), ask(path)
    assert len(ours) > 200
    assert theirs == ours


@pytest.mark.parametrize("kind", ["avx", "avx512"])
def test_vector_registers_reach_stock_gdb(all_cores: Any, tmp_path: Path, kind: str) -> None:
    original = all_cores.vector(kind)
    done = import_cores([str(original)], str(tmp_path / "t"))
    path = tmp_path / "x.core"
    snapshot = gdb_uffd.trace.open(done.path).snapshot(0)
    export_snapshot(snapshot, str(path))
    again = gdb_uffd.trace.open(str(path)).snapshot(0)
    assert again.threads == snapshot.threads
    asked = "ymm15 ymm0 mxcsr" + (" k1 zmm31 zmm1" if kind == "avx512" else "")
    for gdb in gdbs.present():
        out = subprocess.run(
            [gdb, "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex",
             f"info registers {asked}", str(all_cores.built / "vector"), str(path)],
            capture_output=True, text=True,
        )  # fmt: skip
        shown = [line for line in out.stdout.splitlines() if line.startswith(tuple(asked.split()))]
        assert len(shown) == len(asked.split()), out.stdout + out.stderr
        assert not any("unavailable" in line for line in shown)
        xstate = snapshot.threads[0].registers.xstate
        high = int.from_bytes(xstate[576 + 240 : 576 + 256], "little")
        assert f"{high:#x}" in next(line for line in shown if line.startswith("ymm15"))


def built(folder: Path, name: str, *loads: Load, **more: Any) -> str:
    path = folder / name
    files = more.get("files", [])
    path.write_bytes(core(prstatus(77, signal=6) + auxv((9, 1)) + nt_file(files), list(loads)))
    return str(path)


def test_several_cores_share_their_pages(tmp_path: Path) -> None:
    a = built(tmp_path, "a", Load(0x10000, b"x" * 9 * PAGE), Load(0x90000, memsz=PAGE * 8))
    b = built(tmp_path, "b", Load(0x10000, b"x" * 8 * PAGE + b"y" * PAGE))
    c = built(tmp_path, "c", Load(0x20000, b"y" * PAGE), Load(0x10000, b"x" * PAGE))
    told: List[Any] = []
    done = import_cores([a, b, c], str(tmp_path / "t"), progress=lambda *x: told.append(x))
    assert (done.snapshots, done.pages_stored) == (3, 2)
    assert told == [(0, a), (1, b), (2, c)]
    trace = gdb_uffd.trace.open(done.path)
    assert [i.label for i in trace.snapshots] == ["a", "b", "c"]
    assert trace.changed_pages(0, 1) == [0x18000]
    assert trace.changed_pages(1, 2) == [*range(0x11000, 0x19000, PAGE), 0x20000]
    assert trace.snapshot(0).read(0x90000, PAGE * 8) == bytes(PAGE * 8)
    with pytest.raises(MemoryUnavailable, match="not mapped"):
        trace.snapshot(2).read(0x11000, 1)


def test_truncated_cores_stay_truncated(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.write_bytes(b"L" * 3 * PAGE)
    os.utime(library, ns=(1, 1))
    files = [(0x30000, 0x33000, 0, str(library))]
    path = built(
        tmp_path, "a", Load(0x10000, b"x" * 2 * PAGE, memsz=8 * PAGE, filesz=6 * PAGE),
        Load(0x30000, b"", memsz=3 * PAGE, filesz=2 * PAGE), files=files,
    )  # fmt: skip
    original = gdb_uffd.trace.open(path).snapshot(0)
    done = import_cores([path], str(tmp_path / "t"))
    snapshot = gdb_uffd.trace.open(done.path).snapshot(0)
    seen = set()
    for page in [*range(0x10000, 0x18000, PAGE), *range(0x30000, 0x33000, PAGE)]:
        expected = outcome(original, page)
        assert outcome(snapshot, page) == expected, hex(page)
        seen.add(expected is None)
    assert seen == {True, False}
    assert any("truncated core" in line for line in done.warnings)


def test_a_bad_core_leaves_no_trace(tmp_path: Path) -> None:
    good = built(tmp_path, "good", Load(0x10000, b"x" * PAGE))
    bad = tmp_path / "bad"
    bad.write_bytes(b"no core")
    with pytest.raises(UffdError, match="bad: not an ELF file"):
        import_cores([good, str(bad)], str(tmp_path / "t"))
    assert sorted(os.listdir(tmp_path)) == ["bad", "good"]


def exe(build_id: bytes) -> bytes:
    """A page of an ELF file: its headers, and the note with its build-id (<elf.h>)."""
    told = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id if build_id else b""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0x200, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    loaded = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, PAGE, PAGE, PAGE)
    noted = struct.pack("<IIQQQQQQ", 4, 4, 0x100, 0x100, 0x100, len(told), len(told), 4)
    return ((header + loaded + noted).ljust(0x100, b"\0") + told).ljust(PAGE, b"\0")


def of_program(folder: Path, name: str, program: str, build_id: bytes, at: int) -> str:
    """A core whose executable `program`, mapped at `at`, has that build-id ("" for none)."""
    elf = exe(build_id)
    path = folder / "bin" / program
    path.parent.mkdir(exist_ok=True)
    load = Load(at, elf)
    notes = prstatus(77, signal=6) + auxv((9, at + 0x200), (3, at + 64), (5, 2))
    notes += nt_file([(at, at + PAGE, 0, str(path))])
    out = folder / name
    out.write_bytes(core(notes, [load]))
    return str(out)


def test_cores_of_two_programs_are_no_trace(tmp_path: Path) -> None:
    a = of_program(tmp_path, "a", "server", b"A" * 20, 0x400000)
    again = of_program(tmp_path, "again", "server", b"A" * 20, 0x7F0000400000)
    build = of_program(tmp_path, "build", "server", b"B" * 20, 0x400000)
    other = of_program(tmp_path, "other", "client", b"C" * 20, 0x400000)
    assert import_cores([a, again], str(tmp_path / "t")).snapshots == 2
    for path, what in ((build, "another build"), (other, "another program")):
        with pytest.raises(UffdError) as error:
            import_cores([a, again, path], str(tmp_path / "u"))
        text = str(error.value)
        assert f"{path}: is of {what} than {a}" in text and "4141" in text, text
        assert "\n" not in text and not (tmp_path / "u.uffd").exists()
    bare = [of_program(tmp_path, n, n, b"", 0x400000) for n in ("client2", "server2")]
    with pytest.raises(UffdError, match="another program"):
        import_cores(bare, str(tmp_path / "u"))


def test_missing_libraries_are_looked_for_again(tmp_path: Path) -> None:
    told = kernel_told(tmp_path)
    assert told.library is not None
    hidden = told.library.with_suffix(".hidden")
    told.library.rename(hidden)
    done = import_cores([str(told.core)], str(tmp_path / "t"))
    text = told.one("libtext")
    with pytest.raises(MemoryUnavailable, match=r"libtold\.so: no such file"):
        gdb_uffd.trace.open(done.path).snapshot(0).read(text, 4)
    hidden.rename(told.library)
    snapshot = gdb_uffd.trace.open(done.path).snapshot(0)
    original = gdb_uffd.trace.open(str(told.core)).snapshot(0)
    assert snapshot.read(text, 4) == original.read(text, 4)


def test_pages_that_cannot_be_read_are_not_in_the_core(tmp_path: Path) -> None:
    mappings = [
        Mapping(BASE, BASE + 600 * PAGE, 3),
        Mapping(BASE + (1 << 30), BASE + (1 << 30) + PAGE, 1, "[vvar]"),
        Mapping(BASE + (1 << 31), BASE + (1 << 31) + PAGE, 3, "", 0, "a device"),
    ]
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(info(), [thread()], b"", mappings)
        pending.area(BASE, 600)
        pending.put(BASE, b"".join(bytes([1 + i % 200]) * PAGE for i in range(600)))
        for page in (0, 5, 6, 300, 599):
            pending.unavailable(BASE + page * PAGE, 1)
        pending.commit()
    snapshot = gdb_uffd.trace.open(writer.path).snapshot(0)
    path = str(tmp_path / "x.core")
    assert export_snapshot(snapshot, path).unavailable_pages == 6
    again = gdb_uffd.trace.open(path).snapshot(0)
    for page in range(600):
        assert outcome(again, BASE + page * PAGE) == outcome(snapshot, BASE + page * PAGE)
    with pytest.raises(MemoryUnavailable, match="not mapped"):
        again.read(BASE, 1)


def test_more_mappings_than_an_elf_header_counts(tmp_path: Path) -> None:
    count = 0xFFFF + 5
    mappings = [
        Mapping(0x10000 + i * 2 * PAGE, 0x10000 + (2 * i + 1) * PAGE, 3) for i in range(count)
    ]
    path = str(tmp_path / "x.core")

    def read(address: int, length: int) -> bytes:
        return address.to_bytes(8, "little") * (length // 8)

    write_core(path, 5, [thread()], b"", mappings, read)
    snapshot = gdb_uffd.trace.open(path).snapshot(0)
    assert len(snapshot.mappings) == count
    last = mappings[-1].start
    assert snapshot.read(last, 8) == last.to_bytes(8, "little")


def test_a_core_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def read(_address: int, _length: int) -> bytes:
        raise RuntimeError("half way")

    path = str(tmp_path / "x.core")
    with pytest.raises(RuntimeError):
        write_core(path, 5, [thread()], b"", [Mapping(BASE, BASE + PAGE, 3)], read)
    with pytest.raises(UffdError, match=r"cannot be written \(No such file"):
        write_core(str(tmp_path / "no" / "x"), 5, [thread()], b"", [], read)
    assert os.listdir(tmp_path) == []


def test_large_untouched_memory_is_neither_read_nor_written(tmp_path: Path) -> None:
    mappings = [Mapping(BASE, BASE + (1 << 38), 3), Mapping(BASE + (1 << 39), BASE + (1 << 40), 3)]
    asked: List[int] = []

    def read(address: int, length: int) -> bytes:
        asked.append(address)
        return b"z" * length

    zeros = [(BASE, BASE + (1 << 37)), (BASE + (1 << 37) + PAGE, BASE + (1 << 38))]
    zeros += [(BASE + (1 << 39), BASE + (1 << 40))]
    path = str(tmp_path / "x.core")
    write_core(path, 5, [thread()], b"", mappings, read, zeros=zeros)
    assert asked == [BASE + (1 << 37)]
    assert os.stat(path).st_blocks * 512 < 1 << 20
    snapshot = gdb_uffd.trace.open(path).snapshot(0)
    assert snapshot.read(BASE + (1 << 37) - 1, 3) == b"\0zz"
