"""Builds and runs the C tests, plain and under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from harness import CACHE, ROOT, SLOWNESS

NATIVE = ROOT / "gdb_uffd" / "native"
SANITIZERS = {
    "plain": [],
    "asan-ubsan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


def built(name: str, kind: str) -> Path:
    """The test program `name`, from the cache when its sources are as they were."""
    source = ROOT / "tests" / "native" / f"{name}.c"
    sources = [source, *sorted(NATIVE.glob("*/*.c"))]
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [*SANITIZERS[kind], f"-I{NATIVE}"]
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in [*sources, *sorted(NATIVE.glob("*/*.h")), *source.parent.glob("*.h")]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    program = CACHE / "native" / f"{name}-{kind}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    fresh = program.with_name(f"{program.name}.{os.getpid()}")
    build = ["cc", *flags, "-o", str(fresh), *map(str, sources), "-lrt"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("the compiler has no sanitizer library here")
    assert done.returncode == 0, done.stderr
    fresh.rename(program)
    return program


@pytest.mark.parametrize("kind", SANITIZERS)
@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "tests/native").glob("*.c"))])
def test_native(name, kind):
    ran = subprocess.run(
        [str(built(name, kind))],
        capture_output=True,
        text=True,
        check=False,
        timeout=110 * SLOWNESS,
    )
    assert ran.returncode == 0 and "ok" in ran.stdout, ran.stdout + ran.stderr
