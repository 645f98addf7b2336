"""What a core holds, what it leaves to files, what it does not tell: partial pages, filters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator, List, Sequence, Set, Tuple

import pytest
from harness import cores, foreign
from trace_cores import PAGE, Load, nt_file, prstatus
from trace_cores import core as make_core

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.opening import open_trace
from gdb_uffd.trace.source import FILE, ZERO, Segment
from gdb_uffd.trace.store.export import export_snapshot
from gdb_uffd.trace.store.importing import import_cores

BASE = 0x7F0000000000


def opened(path: Path, loads: Sequence[Load], ranges: Sequence[Tuple[int, int, int, str]] = ()):
    path.write_bytes(make_core(prstatus(77) + nt_file(ranges), loads))
    return open_core(str(path))


def at(snapshot: CoreSnapshot, address: int) -> Segment:
    return next(s for s in snapshot.segments if s.start <= address < s.end)


def test_a_load_that_ends_inside_a_page(tmp_path: Path) -> None:
    data = bytes(range(256)) * 32
    snapshot = opened(tmp_path / "core", [Load(BASE, data[:-5], memsz=2 * PAGE)])
    assert snapshot.read(BASE, 2 * PAGE) == data[:-5] + bytes(5)
    assert not at(snapshot, BASE).unknown and at(snapshot, BASE + PAGE).unknown
    assert [(m.start, m.end) for m in snapshot.mappings] == [(BASE, BASE + 2 * PAGE)]


def test_a_load_that_begins_inside_a_page(tmp_path: Path) -> None:
    snapshot = opened(tmp_path / "core", [Load(BASE + 0x10, b"x" * PAGE)])
    expected = bytes(0x10) + b"x" * PAGE + bytes(PAGE - 0x10)
    assert snapshot.read(BASE, 2 * PAGE) == expected


def test_loads_that_share_a_page(tmp_path: Path) -> None:
    loads = [Load(BASE, b"a" * 0x800), Load(BASE + 0x800, b"b" * 0x800), Load(BASE + PAGE, b"c")]
    snapshot = opened(tmp_path / "core", loads)
    expected = b"a" * 0x800 + b"b" * 0x800 + b"c"
    assert snapshot.read(BASE, PAGE + 1) == expected
    assert not at(snapshot, BASE).unknown and at(snapshot, BASE + PAGE).unknown


def test_the_rest_of_a_partial_page_is_as_in_the_file(tmp_path: Path) -> None:
    mapped = tmp_path / "mapped"
    mapped.write_bytes(b"f" * 2 * PAGE)
    loads = [Load(BASE, b"d" * 100, memsz=2 * PAGE, flags=4)]
    ranges = [(BASE, BASE + 2 * PAGE, 0, str(mapped))]
    snapshot = opened(tmp_path / "core", loads, ranges)
    assert snapshot.read(BASE, 2 * PAGE) == b"d" * 100 + b"f" * (2 * PAGE - 100)
    assert not any(s.unknown for s in snapshot.segments)


def test_a_partial_page_at_the_end_of_a_truncated_core(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(make_core(prstatus(77) + nt_file([]), [Load(BASE, b"t" * (2 * PAGE - 5))]))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    snapshot = open_core(str(path))
    assert snapshot.read(BASE, PAGE) == b"t" * PAGE
    with pytest.raises(MemoryUnavailable, match="truncated core"):
        snapshot.read(BASE + PAGE, 1)


def test_memory_that_was_not_dumped_is_unknown(tmp_path: Path) -> None:
    loads = [
        Load(BASE, b"x" * PAGE),
        Load(BASE + 16 * PAGE, memsz=PAGE),
        Load(BASE + 32 * PAGE, memsz=PAGE, flags=0),
    ]
    snapshot = opened(tmp_path / "core", loads)
    assert at(snapshot, BASE + 16 * PAGE).kind == ZERO and at(snapshot, BASE + 16 * PAGE).unknown
    assert not at(snapshot, BASE + 32 * PAGE).unknown  # nobody could write there
    assert not at(snapshot, BASE).unknown


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.program(tmp_path_factory.mktemp("unknown") / "built")


_FILTERED = """
import os, resource, sys
open("/proc/self/coredump_filter", "w").write(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def filtered(program: Path, tmp_path: Path) -> Iterator[CoreSnapshot]:
    """A core without private memory that was written."""
    command = [sys.executable, "-c", _FILTERED, "0x10", str(program)]
    try:
        core = cores.kernel_core(command, tmp_path / "run")
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    snapshot = open_core(str(core))
    yield snapshot
    snapshot.close()


def test_written_data_is_not_that_of_the_file(filtered: CoreSnapshot) -> None:
    """.data, .bss and what the linker relocated, of the program and of libc; code is there."""
    numbers, half = filtered.symbol("numbers"), filtered.symbol("half")
    stdout, main = filtered.symbol("_IO_2_1_stdout_"), filtered.symbol("main")
    assert None not in (numbers, half, stdout, main)
    for address in (numbers, half, stdout):
        with pytest.raises(MemoryUnavailable, match="not in the core"):
            filtered.read(address or 0, 4)
    assert filtered.read(main or 0, 4)
    assert not [s for s in filtered.segments if s.prot & 2 and s.kind in (FILE, ZERO)]


def test_what_is_not_known_is_not_known_in_an_exported_core(
    filtered: CoreSnapshot, tmp_path: Path
) -> None:
    export_snapshot(filtered, str(tmp_path / "again"))
    again = open_core(str(tmp_path / "again"))
    for name in ("numbers", "_IO_2_1_stdout_"):
        with pytest.raises(MemoryUnavailable, match="not in the core"):
            again.read(filtered.symbol(name) or 0, 4)
    assert again.read(filtered.symbol("main") or 0, 4)


@pytest.mark.parametrize("unit, shadow", [(1, False), (1, True), (PAGE, False)])
def test_what_gcore_leaves_out(tmp_path: Path, unit: int, shadow: bool) -> None:
    """A sanitizer's shadow memory; the kernel (whose NT_FILE counts in pages) does not."""
    library = tmp_path / "libasan.so.8"
    library.write_bytes(b"x" * PAGE)
    loads = [Load(BASE, b"x" * PAGE, flags=5)]
    loads += [Load(0x7FFF8000, memsz=PAGE)] if shadow else []
    notes = prstatus(77) + nt_file([(BASE, BASE + PAGE, 0, str(library))], unit)
    path = tmp_path / "core"
    path.write_bytes(make_core(notes, loads))
    snapshot = open_core(str(path))
    told: List[str] = [w for w in snapshot.warnings if "dump-excluded-mappings on" in w]
    assert bool(told) == bool(snapshot.left_out) == (unit == 1 and not shadow)
    assert all("AddressSanitizer" in w for w in told)


def test_what_is_not_known_is_not_known_in_a_trace(program: Path, tmp_path: Path) -> None:
    """gdb-uffd import; the same pages, whatever the segments."""
    try:
        core = str(foreign.core(program, tmp_path / "run"))
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    import_cores([core], str(tmp_path / "trace.uffd"))
    trace = open_trace(str(tmp_path / "trace.uffd"))
    there, here = trace.snapshot(0), open_core(core)
    known, imported = unknown_pages(here.segments), unknown_pages(there.segments)
    assert known and imported == known
    fresh = int.from_bytes(here.read(here.symbol("fresh") or 0, 8), "little")
    assert (fresh, ZERO) in known
    for page, _ in imported:
        assert there.read(page, PAGE) == here.read(page, PAGE)
    here.close()
    there.close()
    trace.close()


def unknown_pages(segments: Sequence[Segment]) -> Set[Tuple[int, str]]:
    return {
        (page, s.kind)
        for s in segments
        if s.unknown and not s.composed
        for page in range(s.start, min(s.end, s.start + 64 * PAGE), PAGE)
    }


def test_shared_memory_that_was_not_dumped_is_no_file(tmp_path: Path) -> None:
    """It has the name of one, "(deleted)"."""
    names = ("/dev/zero (deleted)", "/memfd:ring (deleted)", "/SYSV0000002a (deleted)")
    places = [BASE + 16 * PAGE * number for number in range(1, 4)]
    loads = [Load(BASE, b"x" * PAGE), *(Load(at, memsz=PAGE) for at in places)]
    ranges = [(at, at + PAGE, 0, name) for at, name in zip(places, names)]
    snapshot = opened(tmp_path / "core", loads, ranges)
    for at in places:
        with pytest.raises(MemoryUnavailable, match="shared memory, kept out of the core"):
            snapshot.read(at, 1)
        assert "coredump_filter" in snapshot.remedy(at)
    snapshot.close()
