"""Cores as they come from other machines: of tests/programs/foreign.c, with other libraries."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Sequence

from gdb_uffd.trace.core.core import open_core
from gdb_uffd.trace.core.elf import PT_NOTE, ElfImage, iter_notes, read_header, read_segments
from harness import cores
from harness.programs import SOURCES, C

PAGE = 4096
NT_PRSTATUS = 1
TABLES = ["-fno-builtin", "-Wl,--hash-style=sysv"]


VERSIONS = """
V1 { global: answer; twice; measured; filler_*; local: *; };
V2 { global: answer; } V1;
"""


def program(folder: Path) -> Path:
    """foreign.c and its libraries, built in `folder`, which is made; what it calls in libraries is
    bound when it is called, what libchoice.so calls at the start."""
    folder.mkdir(parents=True)
    out, library, script = folder / "foreign", folder / "libchoice.so", folder / "versions"
    source = str(SOURCES / "foreign.c")
    script.write_text(VERSIONS)
    flags = ["-DLIBRARY", "-fPIC", "-shared", *TABLES, f"-Wl,--version-script={script}"]
    subprocess.run([*C, *flags, "-Wl,-z,now", "-o", str(library), source], check=True)
    flags = ["-DPRELOADED", "-fPIC", "-shared", *TABLES]
    subprocess.run([*C, *flags, "-o", str(folder / "libbefore.so"), source], check=True)
    flags = ["-DOPENED", "-fPIC", "-shared", "-o", str(folder / "libopened.so"), source]
    subprocess.run([*C, *flags], check=True)
    flags = ["-Wl,-z,lazy", "-Wl,-rpath,$ORIGIN", "-o", str(out), source, str(library), "-ldl"]
    subprocess.run([*C, *flags], check=True)
    return out


def core(built: Path, run: Path, **env: str) -> Path:
    """The kernel's core of it, with these variables more.  NoKernelCore."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "cut").write_bytes(b"c" * 2 * PAGE)
    return cores.kernel_core([str(built), str(run / "cut")], run, {**os.environ, **env})


def mapped(core_file: Path) -> "dict[str, Path]":
    """The files that are mapped in a core, by the beginning of their names: "libc", "ld-linux"
    (before glibc 2.34: libc-2.31.so, ld-2.31.so)."""
    snapshot = open_core(str(core_file))
    try:
        paths = {Path(module.path) for module in snapshot.modules}
    finally:
        snapshot.close()
    names = {re.split(r"-x86|-aarch|-[\d.]+\.so$|\.", path.name)[0]: path for path in paths}
    return {{"ld": "ld-linux"}.get(name, name): path for name, path in names.items()}


def of_other_builds(core_file: Path, target: Path, libraries: Sequence[Path]) -> Path:
    """A copy of the core, as if it was made with other builds of `libraries`."""
    data = core_file.read_bytes()
    for library in libraries:
        build_id = ElfImage.from_file(library.read_bytes()).build_id()
        assert build_id in data, library
        data = data.replace(build_id, bytes([build_id[0] ^ 0xFF]) + build_id[1:])
    target.write_bytes(data)
    return target


def without_notes(core_file: Path, target: Path, kinds: Sequence[int]) -> Path:
    """A copy of the core whose notes of these types are of no known one."""
    data = bytearray(core_file.read_bytes())
    header = read_header(bytes(data[:64]))
    notes = next(s for s in read_segments(bytes(data), header, 1) if s.type == PT_NOTE)
    for _, kind, at, _ in iter_notes(bytes(data), notes.offset, notes.offset + notes.filesz):
        if kind in kinds:
            names = (b"CORE", b"LINUX")
            start = max(data.rfind(kind.to_bytes(4, "little") + name, 0, at) for name in names)
            data[start : start + 4] = (0x7FFF0000).to_bytes(4, "little")
    target.write_bytes(data)
    return target


def without_segments(core_file: Path, target: Path) -> Path:
    """A copy of the core whose threads have no segment registers, as in valgrind's."""
    data = bytearray(core_file.read_bytes())
    header = read_header(bytes(data[:64]))
    notes = next(s for s in read_segments(bytes(data), header, 1) if s.type == PT_NOTE)
    for _, kind, at, _ in iter_notes(bytes(data), notes.offset, notes.offset + notes.filesz):
        if kind == NT_PRSTATUS:
            for index in (17, 20):  # cs, ss of pr_reg (<sys/user.h>)
                start = at + 112 + 8 * index
                data[start : start + 8] = bytes(8)
    target.write_bytes(data)
    return target
