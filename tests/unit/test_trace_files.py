"""Mapped files: found, missing, replaced, deleted, devices; the executable that the user names."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Iterator, Tuple

import pytest
from trace_cores import (
    PAGE,
    Load,
    Told,
    auxv,
    build_library,
    core,
    kernel_told,
    nt_file,
    prpsinfo,
    prstatus,
)

from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.core.elf import ElfImage
from gdb_uffd.trace.files import evidence, files
from gdb_uffd.trace.source import FILE, UNAVAILABLE

BASE = 0x7F0000000000
HEX = r"[0-9a-f]{40}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return kernel_told(tmp_path_factory.mktemp("original"))


@pytest.fixture
def told(original: Told) -> Iterator[Told]:
    """The core, with library and executable put back in place afterwards."""
    assert original.library is not None
    kept = {p: p.with_suffix(".kept") for p in (original.library, original.program)}
    for path, copy in kept.items():
        shutil.copy2(path, copy)
    yield original
    for path, copy in kept.items():
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        shutil.copy2(copy, path)


def _only_warning(snapshot: CoreSnapshot) -> str:
    (line,) = snapshot.warnings
    assert "\n" not in line
    return line


def _library_text_is_unavailable(snapshot: CoreSnapshot, told: Told, reason: str) -> None:
    text = told.one("libtext")
    with pytest.raises(MemoryUnavailable, match=reason):
        snapshot.read(text, 1)
    mapping = next(m for m in snapshot.mappings if m.start <= text < m.end)
    assert mapping.unavailable
    # everything else is as it was: dumped pages of the same library, other libraries
    assert snapshot.read(told.one("libdata"), 8) == (9).to_bytes(8, "little")
    printf = snapshot.symbol("printf")
    assert printf is not None and snapshot.read(printf, 4)
    assert snapshot.classify(told.one("libdata")).mapping == str(told.library)


def test_missing_library(told: Told) -> None:
    assert told.library is not None
    told.library.unlink()
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "libtold.so: no such file")
    line = _only_warning(snapshot)
    assert str(told.library) in line and "build-id" in line and "pages are unavailable" in line


def test_library_with_another_build_id(told: Told) -> None:
    assert told.library is not None
    build_library(told.library.parent, seed=2)
    snapshot = open_core(str(told.core))
    expected = f"has build-id {HEX}, the core was made with build-id {HEX}"
    _library_text_is_unavailable(snapshot, told, expected)
    assert str(told.library) in _only_warning(snapshot)


def test_library_that_lost_its_build_id(told: Told) -> None:
    assert told.library is not None
    build_library(told.library.parent, 2, "-Wl,--build-id=none")
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "differs from the file that was mapped")


def test_library_rebuilt_the_same(told: Told) -> None:
    assert told.library is not None
    build_library(told.library.parent)
    snapshot = open_core(str(told.core))
    assert snapshot.warnings == []
    assert snapshot.read(told.one("libtext"), 1)


def test_a_stripped_library_serves(told: Told) -> None:
    assert told.library is not None
    subprocess.run(["strip", str(told.library)], check=True)
    snapshot = open_core(str(told.core))
    assert snapshot.warnings == [] and snapshot.read(told.one("libtext"), 1)


def test_a_debug_file_has_the_build_id_and_not_the_bytes(told: Told) -> None:
    assert told.library is not None
    subprocess.run(["objcopy", "--only-keep-debug", str(told.library)], check=True)
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "is a separate debug file")
    assert str(told.library) in _only_warning(snapshot)


def test_a_debug_file_that_was_mapped_itself(told: Told) -> None:
    """A program that prints its own backtraces maps libc's, as data: then its bytes are right."""
    assert told.library is not None
    whole = told.library.read_bytes()
    subprocess.run(["objcopy", "--only-keep-debug", str(told.library)], check=True)
    debug = told.library.read_bytes()
    image = ElfImage.from_file(debug)
    for mapped, expected in ((debug, ""), (whole, evidence.DEBUG_FILE)):
        assert evidence.contradiction(debug, image, None, [(0, mapped[:PAGE])]) == expected
    assert evidence.contradiction(debug, image, None, []) == evidence.DEBUG_FILE


def test_a_changed_library_of_the_same_build_id(told: Told) -> None:
    """The core has its first page, with the program headers (p_paddr is nobody's)."""
    assert told.library is not None
    data = bytearray(told.library.read_bytes())
    data[64 + 24] ^= 1
    told.library.write_bytes(data)
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "differs from the file that was mapped")


def test_naming_the_debug_file_of_the_executable(told: Told, tmp_path: Path) -> None:
    """Its symbols serve."""
    debug = tmp_path / "told.debug"
    subprocess.run(["objcopy", "--only-keep-debug", str(told.program), str(debug)], check=True)
    whole = open_core(str(told.core))
    main = whole.symbol("main")
    assert main is not None and whole.read(main, 1)
    told.program.unlink()
    snapshot = open_core(str(told.core), str(debug))
    assert snapshot.executable == str(debug) and snapshot.symbol("main") == main
    with pytest.raises(MemoryUnavailable, match="is a separate debug file"):
        snapshot.read(main, 1)
    assert "is a separate debug file" in _only_warning(snapshot)


def test_library_replaced_by_a_folder_or_fifo(told: Told) -> None:
    assert told.library is not None
    told.library.unlink()
    told.library.mkdir()
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "not a regular file")
    told.library.rmdir()
    os.mkfifo(told.library)
    snapshot = open_core(str(told.core))
    _library_text_is_unavailable(snapshot, told, "not a regular file")


def test_truncated_library(told: Told) -> None:
    assert told.library is not None
    image = ElfImage.from_file(told.library.read_bytes())
    text = next(s for s in image.loads if s.flags & 1)
    os.truncate(told.library, text.offset + 100)
    snapshot = open_core(str(told.core))
    start = told.one("libtext") & ~4095
    assert snapshot.read(start, 100) == told.library.read_bytes()[-100:]
    assert snapshot.read(start + 100, PAGE - 100) == bytes(PAGE - 100)
    with pytest.raises(MemoryUnavailable, match="past the end of"):
        snapshot.read(start + PAGE, 1)


def test_missing_executable_and_naming_it(told: Told, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    shutil.move(str(told.program), elsewhere)
    snapshot = open_core(str(told.core))
    assert snapshot.executable == ""
    assert "uffd spawn CORE EXECUTABLE" in _only_warning(snapshot)
    assert snapshot.symbol("main") is None
    snapshot.close()
    snapshot = open_core(str(told.core), str(elsewhere))
    assert snapshot.warnings == []
    assert snapshot.executable == str(elsewhere)
    assert snapshot.symbol("data_value") == told.one("data")
    assert snapshot.classify(told.one("bss")).mapping == str(elsewhere)
    assert snapshot.classify(told.one("data")).mapping == str(elsewhere)


def test_naming_the_wrong_executable(told: Told, tmp_path: Path) -> None:
    with pytest.raises(UffdError, match=f"sh: has build-id {HEX}.*build-id {HEX}.*CORE EXECUTABLE"):
        open_core(str(told.core), "/bin/sh")
    with pytest.raises(UffdError, match="no such file"):
        open_core(str(told.core), str(tmp_path / "absent"))
    with pytest.raises(UffdError, match="not an x86-64 executable"):
        open_core(str(told.core), "/etc/passwd")
    with pytest.raises(UffdError, match="not a regular file"):
        open_core(str(told.core), "/dev/zero")


def test_relative_executable(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told.program.parent)
    snapshot = open_core(told.core.name, told.program.name)
    assert snapshot.executable == str(told.program)


def _mapped(
    folder: Path, path: str, size: int = 2 * PAGE, load: Tuple[Load, ...] = (), unit: int = PAGE
) -> Path:
    """A core that says `path` was mapped at BASE."""
    notes = prstatus(5) + nt_file([(BASE, BASE + size, 0, path)], unit)
    target = folder / "mapped.core"
    target.write_bytes(core(notes, [Load(0x10000, b"x" * PAGE), *load]))
    return target


@pytest.mark.parametrize("unit", [1, PAGE])
def test_data_file_that_no_load_covers(tmp_path: Path, unit: int) -> None:
    data = tmp_path / "table"
    data.write_bytes(b"T" * 5000)
    made = _mapped(tmp_path, str(data), 3 * PAGE, unit=unit)
    snapshot = open_core(str(made))
    assert snapshot.read(BASE, 2 * PAGE) == b"T" * 5000 + bytes(2 * PAGE - 5000)
    with pytest.raises(MemoryUnavailable, match="past the end of"):
        snapshot.read(BASE + 2 * PAGE, 1)
    (first, last) = [s for s in snapshot.segments if s.start >= BASE]
    assert (first.kind, first.data_end, first.prot) == (FILE, 5000, 1)
    assert last.kind == UNAVAILABLE
    assert snapshot.mappings[-1].name == str(data)


def test_file_newer_than_the_core(tmp_path: Path) -> None:
    data = tmp_path / "table"
    data.write_bytes(b"T" * 9000)
    made = _mapped(tmp_path, str(data))
    os.utime(made, (1000, 1000))
    snapshot = open_core(str(made))
    with pytest.raises(MemoryUnavailable, match="newer than the core"):
        snapshot.read(BASE, 1)


def test_first_page_tells_data_files_apart(tmp_path: Path) -> None:
    data = tmp_path / "table"
    data.write_bytes(b"T" * 9000)
    same = _mapped(tmp_path, str(data), load=(Load(BASE, b"T" * PAGE, memsz=2 * PAGE, flags=4),))
    assert open_core(str(same)).read(BASE + PAGE, 9) == b"T" * 9
    other = _mapped(tmp_path, str(data), load=(Load(BASE, b"O" * PAGE, memsz=2 * PAGE, flags=4),))
    snapshot = open_core(str(other))
    assert snapshot.read(BASE, PAGE) == b"O" * PAGE
    with pytest.raises(MemoryUnavailable, match="differs"):
        snapshot.read(BASE + PAGE, 1)


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/dev/zero", "not a regular file"),
        ("/dev/zero (deleted)", "shared memory"),
        ("/memfd:x (deleted)", "shared memory"),
        ("/no/such/dir/lib.so", "no such file"),
        ("/etc/passwd/x", "no such file"),
        ("anon_inode:[perf_event]", "not a file"),
        ("/proc/self/maps", "empty file"),
        ("relative/path", "not a file"),
        ("", "not a file"),
        ("/no/su\nch\x1b[31m", r"/no/su\^Jch\^\[\[31m: no such file"),
    ],
)
def test_files_that_cannot_serve(tmp_path: Path, path: str, reason: str) -> None:
    snapshot = open_core(str(_mapped(tmp_path, path)))
    with pytest.raises(MemoryUnavailable, match=reason):
        snapshot.read(BASE, 1)
    assert "2 pages are unavailable" in _only_warning(snapshot)


def test_deleted_file_that_was_dumped_needs_nothing(tmp_path: Path) -> None:
    load = Load(BASE, b"S" * 2 * PAGE)
    snapshot = open_core(str(_mapped(tmp_path, "/SYSV00000000 (deleted)", load=(load,))))
    assert snapshot.warnings == []
    assert snapshot.read(BASE, 2 * PAGE) == b"S" * 2 * PAGE


def test_deleted_library_serves_again_with_the_same_build_id(told: Told, tmp_path: Path) -> None:
    assert told.library is not None
    image = told.library.read_bytes()
    notes = prstatus(5) + nt_file([(BASE, BASE + 2 * PAGE, 0, f"{told.library} (deleted)")])
    made = tmp_path / "deleted.core"
    made.write_bytes(core(notes, [Load(BASE, image[:PAGE], memsz=2 * PAGE, flags=4)]))
    assert open_core(str(made)).read(BASE + PAGE, 99) == image[PAGE : PAGE + 99]
    build_library(told.library.parent, seed=3)
    with pytest.raises(MemoryUnavailable, match="deleted or replaced"):
        open_core(str(made)).read(BASE + PAGE, 99)


def test_unreadable_file(tmp_path: Path) -> None:
    data = tmp_path / "secret"
    data.write_bytes(b"T" * 9000)
    data.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody
    try:
        with pytest.raises(UffdError, match="permission denied"):
            open_core(str(data))
        with pytest.raises(files.FileProblem, match="permission denied"):
            files.FileCache().open(str(data))
    finally:
        if root:
            os.seteuid(0)


def test_named_executable_in_a_core_without_file_note(told: Told, tmp_path: Path) -> None:
    image = ElfImage.from_file(told.program.read_bytes())
    bias = 0x555500000000
    notes = prstatus(5) + prpsinfo(5, b"telltale")
    notes += auxv((9, bias + image.header.entry), (5, image.header.phnum))
    made = tmp_path / "bare.core"
    made.write_bytes(core(notes, [Load(0x10000, b"x" * PAGE)]))
    snapshot = open_core(str(made), str(told.program))
    main = snapshot.symbol("main")
    assert main is not None and main > bias
    offset = main - bias
    assert snapshot.read(main, 8) == image.read(offset, 8)
    with pytest.raises(UffdError, match=r"program headers|entry point"):
        open_core(str(made), "/bin/sh")
    with pytest.raises(UffdError, match="does not tell where"):
        made.write_bytes(core(prstatus(5), [Load(0x10000, b"x" * PAGE)]))
        open_core(str(made), str(told.program))


def test_parts_of_a_library_that_are_mapped_below_it(tmp_path: Path) -> None:
    """A program that reads its own symbols maps pieces of the file; the object is still found, and
    what the linker relocated (RELRO, recorded) is no reason to doubt the file."""
    library = build_library(tmp_path)
    data = library.read_bytes()
    image = ElfImage.from_file(data)
    assert len(data) > 2 * PAGE
    top = BASE + 64 * PAGE
    written = next(s for s in image.loads if s.flags & 2)
    relro = written.offset & -PAGE
    pieces = [(BASE, BASE + PAGE, PAGE, str(library)), (top, top + PAGE, 0, str(library))]
    pieces.append((top + PAGE, top + 2 * PAGE, PAGE, str(library)))
    pieces.append((top + 32 * PAGE, top + 33 * PAGE, relro, str(library)))
    loads = [
        Load(BASE, memsz=PAGE, flags=4),
        Load(top, data[:PAGE], flags=4),
        Load(top + PAGE, memsz=PAGE, flags=4),
        Load(top + 32 * PAGE, b"r" * PAGE, flags=4),
    ]
    path = tmp_path / "core"
    path.write_bytes(core(prstatus(77) + nt_file(pieces), loads))
    snapshot = open_core(str(path))
    assert snapshot.warnings == [] and len(snapshot.modules) == 2
    assert snapshot.modules[1].bias == top and snapshot.modules[1].recorded_id
    for address in (BASE, top + PAGE):
        assert snapshot.read(address, PAGE) == data[PAGE : 2 * PAGE]
    loads[1] = Load(top, memsz=PAGE, flags=4)  # and without the page that tells what it is
    path.write_bytes(core(prstatus(77) + nt_file(pieces), loads))
    os.utime(library, (0, 0))
    assert open_core(str(path)).read(top + PAGE, PAGE) == data[PAGE : 2 * PAGE]


def test_a_file_that_is_another_now_is_not_taken(tmp_path: Path) -> None:
    """By its build-id where it has one, else by its size and the time of its last change."""
    path = tmp_path / "data"
    path.write_bytes(b"as it was")
    cache = files.FileCache()
    ref = cache.open(str(path)).ref()
    assert files.unchanged(cache, str(path), ref).path == str(path)
    assert files.unchanged(cache, f"{path} (deleted)", ref).path == str(path)
    for other in (
        replace(ref, size=ref.size + 1),
        replace(ref, mtime_ns=ref.mtime_ns - 1),
        replace(ref, build_id=b"it had one"),
    ):
        with pytest.raises(files.FileProblem, match="is not the file that was mapped"):
            files.unchanged(cache, str(path), other)
    cache.close()
