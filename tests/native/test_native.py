"""Builds and runs the C tests, plain and under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import List

import pytest
from harness import CACHE, ROOT, SLOWNESS

NATIVE = ROOT / "gdb_uffd" / "native"
SANITIZERS = {
    "plain": [],
    "asan-ubsan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{NATIVE}"]


def compile_into(place: Path, arguments: List[str]) -> Path:
    """What the compiler writes at `place`, which appears whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        done = subprocess.run(["cc", *arguments], cwd=folder, capture_output=True, text=True)
        if "cannot find" in done.stderr and "san" in done.stderr:
            pytest.skip("the compiler has no sanitizer library here")
        assert done.returncode == 0, done.stderr
        made = Path(folder, place.name)
        if not made.exists():  # objects, as the compiler names them
            made.mkdir()
            for path in Path(folder).glob("*.o"):
                path.rename(made / path.name)
        with contextlib.suppress(OSError):  # a run beside this one was faster
            made.rename(place)
    return place


def digest_of(flags: List[str], paths: List[Path]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def built(name: str, kind: str) -> Path:
    """The test program `name`, from the cache when its sources are as they were, as are the objects
    that all of them have."""
    flags = [*FLAGS, *SANITIZERS[kind]]
    sources, headers = sorted(NATIVE.glob("*/*.c")), sorted(NATIVE.glob("*/*.h"))
    objects = CACHE / "native" / f"{kind}-{digest_of(flags, [*sources, *headers])}"
    if not objects.exists():
        compile_into(objects, [*flags, "-c", *map(str, sources)])
    source = ROOT / "tests" / "native" / f"{name}.c"
    own = digest_of([objects.name], [source, *sorted(source.parent.glob("*.h"))])
    program = CACHE / "native" / f"{name}-{kind}-{own}"
    if not program.exists():
        linked = [str(source), *map(str, sorted(objects.glob("*.o"))), "-lrt"]
        compile_into(program, [*flags, "-o", program.name, *linked])
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
