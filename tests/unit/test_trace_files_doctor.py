"""`gdb-uffd doctor CORE`: each file's state, and what to type."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
from harness import foreign
from harness.cores import NoKernelCore, kernel_core
from trace_cores import Told, build_library, kernel_told

from gdb_uffd import cli
from gdb_uffd.trace.core.elf import ElfImage

Capture = pytest.CaptureFixture[str]


PACKAGE = json.dumps(
    {"type": "rpm", "name": "told", "version": "2.0-1.fc39", "architecture": "x86_64"}
).encode()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Its library says what package it is of (systemd.io, "Package Metadata")."""
    folder = tmp_path_factory.mktemp("original")
    note = struct.pack("<III", 4, len(PACKAGE) + 1, 0xCAFE1A7E) + b"FDO\0" + PACKAGE + b"\0"
    text = ",".join(map(str, note.ljust(-(-len(note) // 4) * 4, b"\0")))
    (folder / "note.s").write_text(
        f'.section .note.package,"a",@note\n.balign 4\n.byte {text}\n'
        '.section .note.GNU-stack,"",@progbits\n'
    )
    # In the first page, which is in a core: where a linker puts what its script lacks differs.
    (folder / "first.ld").write_text(
        "SECTIONS { .note.package : { KEEP(*(.note.package)) } } INSERT AFTER .note.gnu.build-id;\n"
    )
    flags = (str(folder / "note.s"), f"-Wl,-T,{folder / 'first.ld'}")
    return kernel_told(folder, library_flags=flags)


@pytest.fixture
def told(original: Told) -> Iterator[Told]:
    """The library may be replaced or removed; it is as it was when the test ends."""
    assert original.library is not None
    kept = original.library.with_suffix(".kept")
    shutil.copy2(original.library, kept)
    yield original
    kept.replace(original.library)


def doctor(capsys: Capture, *arguments: object) -> Tuple[int, str, Dict[str, Any]]:
    """Its status, its text, and the library's entry in its JSON."""
    words = [str(a) for a in arguments]
    code = cli.main(["doctor", *words])
    text, error = capsys.readouterr()
    assert error == ""
    assert cli.main(["doctor", "--json", *words]) == code
    data = json.loads(capsys.readouterr().out)
    assert data["whole"] == (code == 0)
    (library,) = [f for f in data["files"] if f["path"].endswith("libtold.so")]
    return code, text, {**library, "advice": "\n".join(data["advice"])}


def identity(path: Path) -> str:
    return ElfImage.from_file(path.read_bytes()).build_id().hex()


def test_all_is_here(told: Told, capsys: Capture) -> None:
    code, text, library = doctor(capsys, told.core)
    assert code == 0 and f"ok    {told.library}: here\n" in text
    assert library["state"] == "found" and library["debug"] == "(own)"
    assert library["package"] == "told 2.0-1.fc39 x86_64 (rpm)"
    libc = os.path.realpath(foreign.mapped(Path(told.core))["libc"])
    assert f"{os.path.basename(libc)}: here; " in text  # and whether its debug file is


def test_missing(told: Told, capsys: Capture) -> None:
    assert told.library is not None
    needed = identity(told.library)
    told.library.unlink()
    code, text, library = doctor(capsys, told.core)
    assert code == 1 and library["state"] == "missing" and library["pages"] > 0
    line = next(line for line in text.splitlines() if "libtold.so: " in line)
    assert line.startswith(f"FAIL  {told.library}: missing; needed: build-id {needed} of told 2.0")
    for wanted in (
        f"gdb-uffd pack --debug {told.core}",
        "set uffd files-from PATH",
        "set debuginfod enabled on",
        f"dnf provides /usr/lib/.build-id/{needed[:2]}/{needed[2:]}",
        f"find-dbgsym-packages {told.core}",
        "told 2.0-1.fc39 x86_64",
    ):
        assert wanted in text and wanted in library["advice"], wanted
    text = doctor(capsys, told.core, "--debuginfod", "http://127.0.0.1:1")[1]
    assert "debuginfod is asked when it is opened: http://127.0.0.1:1" in text


def test_another_build(told: Told, tmp_path: Path, capsys: Capture) -> None:
    assert told.library is not None
    needed = identity(told.library)
    build_library(told.library.parent, 2)
    code, text, library = doctor(capsys, told.core)
    assert code == 1 and library["state"] == "other build"
    assert (library["build_id"], library["its_id"]) == (needed, identity(told.library))
    assert f"another build is at {told.library}: {identity(told.library)}; needed: " in text


def test_a_debug_file_in_its_place(told: Told, capsys: Capture) -> None:
    assert told.library is not None
    kept = told.library.with_suffix(".kept")
    subprocess.run(["objcopy", "--only-keep-debug", kept, told.library], check=True)
    code, text, library = doctor(capsys, told.core)
    assert code == 1 and library["state"] == "debug file"
    assert f"only its separate debug file, which has no code, is at {told.library}" in text


def test_found_elsewhere_with_its_debug_file(told: Told, tmp_path: Path, capsys: Capture) -> None:
    assert told.library is not None
    subprocess.run(["objcopy", "--only-keep-debug", told.library, tmp_path / "x.debug"], check=True)
    subprocess.run(["strip", told.library, "-o", tmp_path / "x.so"], check=True)
    told.library.unlink()
    code, text, library = doctor(capsys, told.core, "--files-from", tmp_path)
    assert code == 0 and library["state"] == "found"
    assert library["there"] == f"{tmp_path}/x.so" and library["debug"] == f"{tmp_path}/x.debug"
    assert f"libtold.so: found at {tmp_path}/x.so; debug file {tmp_path}/x.debug\n" in text
    target = tmp_path / "p.uffd.zst"
    assert cli.main(["pack", str(told.core), "-o", str(target), "--files-from", str(tmp_path)]) == 0
    capsys.readouterr()
    code, text, library = doctor(capsys, target)
    assert code == 0 and library["there"] == f"{target}:{told.library}"


def test_shared_memory_is_no_file(tmp_path: Path, capsys: Capture) -> None:
    """Its name is that of a deleted file; none would help."""
    source, program = tmp_path / "shared.c", tmp_path / "shared"
    source.write_text(
        "#include <stdlib.h>\n#include <stdio.h>\n#include <sys/mman.h>\nint main(void) {\n"
        'FILE *filter = fopen("/proc/self/coredump_filter", "w");\n'
        'fputs("0x31", filter); fclose(filter);\n'
        "int *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);\n"
        "*p = 7; abort(); }"
    )
    subprocess.run(["cc", "-g", "-o", program, source], check=True)
    try:
        core = kernel_core([str(program)], tmp_path / "run")
    except NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    assert cli.main(["doctor", str(core)]) == 0
    text = capsys.readouterr().out
    assert "warn  /dev/zero: shared memory, kept out" in text and "FAIL" not in text, text
    assert cli.main(["doctor", "--json", str(core)]) == 0
    states = [f["state"] for f in json.loads(capsys.readouterr().out)["files"]]
    assert states.count("left out") == 1 and "missing" not in states


def test_no_core(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["doctor", str(tmp_path / "nosuch")]) == 1
    assert "nosuch: no such file" in capsys.readouterr().err
