"""Cores as they come from other machines: of tests/programs/foreign.c, with other libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Sequence

from gdb_uffd.trace.core import open_core
from gdb_uffd.trace.elf import Image
from harness import cores
from harness.programs import SOURCES, C

PAGE = 4096


def program(folder: Path, *flags: str) -> Path:
    """foreign.c, built in `folder`, which is made; its calls of libraries are bound when made."""
    folder.mkdir(parents=True)
    out = folder / "foreign"
    source = str(SOURCES / "foreign.c")
    subprocess.run([*C, "-Wl,-z,lazy", *flags, "-o", str(out), source], check=True)
    return out


def core(built: Path, run: Path) -> Path:
    """The kernel's core of it.  NoKernelCore."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "cut").write_bytes(b"c" * 2 * PAGE)
    return cores.kernel_core([str(built), str(run / "cut")], run)


def mapped(core_file: Path) -> "dict[str, Path]":
    """The files that are mapped in a core, by the beginning of their names: "libc", "ld-linux"."""
    snapshot = open_core(str(core_file))
    try:
        paths = {Path(module.path) for module in snapshot.modules}
    finally:
        snapshot.close()
    return {p.name.split("-x86")[0].split("-aarch")[0].split(".")[0]: p for p in paths}


def of_other_builds(core_file: Path, target: Path, libraries: Sequence[Path]) -> Path:
    """A copy of the core, as if it was made with other builds of `libraries`."""
    data = core_file.read_bytes()
    for library in libraries:
        build_id = Image.from_file(library.read_bytes()).build_id()
        assert build_id in data, library
        data = data.replace(build_id, bytes([build_id[0] ^ 0xFF]) + build_id[1:])
    target.write_bytes(data)
    return target
