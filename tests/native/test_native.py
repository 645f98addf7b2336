"""Builds and runs the C tests, plain and under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess

import pytest
from harness import ROOT

NATIVE = ROOT / "gdb_uffd" / "native"
SANITIZERS = {
    "plain": [],
    "asan-ubsan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


@pytest.mark.parametrize("kind", SANITIZERS)
@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "tests/native").glob("*.c"))])
def test_native(name, kind, tmp_path):
    program = tmp_path / name
    sources = [str(p) for p in sorted(NATIVE.glob("*.c")) if p.name != "_native.c"]
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    build = ["cc", *flags, *SANITIZERS[kind], f"-I{NATIVE}", "-o", str(program)]
    done = subprocess.run(
        [*build, str(ROOT / "tests" / "native" / f"{name}.c"), *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("the compiler has no sanitizer library here")
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=110)
    assert ran.returncode == 0 and "ok" in ran.stdout, ran.stdout + ran.stderr
