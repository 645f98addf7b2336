"""The native module built under AddressSanitizer and UndefinedBehaviorSanitizer, and put in the
place of the usual one.

`python sanitized.py BUILD-ONLY` makes it; a process that is to use it is started with `environment`
(the sanitizer's library must come first, which LD_PRELOAD sees to) and calls `load` before it
imports anything of gdb_uffd.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Dict

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "gdb_uffd" / "native"
CACHE = ROOT / ".cache" / "torture"
MODULE = "gdb_uffd.native._native"
FLAGS = ["-std=gnu11", "-g", "-O1", "-w", "-pthread", "-fPIC", "-shared", "-fno-omit-frame-pointer"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]  # as tests/native


def path() -> Path:
    """Where the build of the present sources lies, or will."""
    digest = hashlib.sha256(" ".join([*FLAGS, sys.version]).encode())
    for source in sorted([*NATIVE.glob("*/*.[ch]"), NATIVE / "build.py"]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return CACHE / f"native-{digest.hexdigest()[:16]}" / "_native.abi3.so"


def build() -> None:
    """Make it; CalledProcessError when the compiler fails."""
    made = path()
    if made.exists():
        return
    made.parent.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.spec_from_file_location("build", NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    generated = made.with_name("_native.c")
    recipe.ffibuilder.emit_c_code(str(generated))
    sources = [str(generated), *(str(NATIVE / name) for name in recipe.SOURCES)]
    includes = [f"-I{NATIVE}", f"-I{sysconfig.get_path('include')}"]
    fresh = made.with_name(f"fresh.{os.getpid()}")
    subprocess.run(["cc", *FLAGS, *includes, "-o", str(fresh), *sources], check=True)
    fresh.rename(made)


def environment() -> Dict[str, str]:
    """What a process that uses it needs.  Python's own allocator hides where objects end from the
    sanitizer: malloc's takes its place (PYTHONMALLOC, Python's manual)."""
    found = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    options = "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1"
    return {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
        "PYTHONMALLOC": "malloc",
    }


def load() -> None:
    """Take it as gdb_uffd's native module from now on."""
    loader = importlib.machinery.ExtensionFileLoader(MODULE, str(path()))
    spec = importlib.util.spec_from_file_location(MODULE, str(path()), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[MODULE] = module


if __name__ == "__main__":
    build()
