"""Builds the inferiors of tests/programs into the cache, once for each state of their sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List

import pytest

from harness import CACHE, ROOT

SOURCES = ROOT / "tests" / "programs"

C = ["cc", "-g", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread"]
CXX = ["c++", "-g", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread"]


X86_64_ONLY = ("vector.c", "pulse.c")
"""They are about its registers."""


UNTOLD = ["-fno-asynchronous-unwind-tables", "-fno-exceptions", "-fno-unwind-tables"]
UNWINDS = {
    "unwinds": ["-fstack-clash-protection"],
    "unwinds-o2": ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"],
    "unwinds-untold": UNTOLD,
    "unwinds-untold-o2": ["-O2", "-fno-optimize-sibling-calls", *UNTOLD],
    "unwinds-static": ["-static"],
}
"""Kinds of frames, by the program's name."""


def _recipes(out: Path) -> List[List[str]]:
    """The commands that build everything into `out`, in order."""

    def source(name: str) -> str:
        return str(SOURCES / name)

    def target(name: str) -> str:
        return str(out / name)

    recipes = [
        [*C, "-o", target("sample"), source("sample.c")],
        [*C, "-static", "-o", target("sample-static"), source("sample.c")],
        [*C, "-fPIC", "-shared", "-o", target("libtlslib.so"), source("tlslib.c")],
        [*C, "-fPIC", "-shared", "-o", target("plugin.so"), source("plugin.c")],
        [*C, "-o", target("zoo"), source("zoo.c"), "-L" + str(out), "-ltlslib", "-ldl"]
        + ["-Wl,-rpath,$ORIGIN"],
        [*C, "-o", target("vector"), source("vector.c")],
        [*C, "-o", target("forbid"), source("forbid.c")],
        [*C, "-o", target("writes"), source("writes.c")],
        [*C, "-o", target("names"), source("names.c"), "-ldl"],
        [
            "cc",
            "-O0",
            "-w",
            "-s",
            "-pthread",
            "-o",
            target("names-stripped"),
            source("names.c"),
            "-ldl",
        ],
        [*C, "-static", "-o", target("heaps-static"), source("heaps.c")],
        [*C, "-o", target("heaps"), source("heaps.c")],
        ["cc", "-g", "-O0", "-w", "-pthread", "-o", target("blocks"), source("blocks.c")],
        ["cc", "-g", "-O0", "-w", "-pthread", "-static", "-o", target("blocks-static")]
        + [source("blocks.c")],
        ["cc", "-g", "-O0", "-w", "-pthread", "-o", target("heirs"), source("heirs.c")],
        ["cc", "-g", "-O0", "-w", "-o", target("moves"), source("moves.c")],
        [*C, "-fPIC", "-shared", "-o", target("namesplugin.so"), source("namesplugin.c")],
        ["cc", "-g", "-O2", "-w", "-pthread", "-o", target("names-o2"), source("names.c"), "-ldl"],
        [*C, "-o", target("firsts"), source("firsts.c"), "-ldl"],
        [*CXX, "-o", target("containers"), source("containers.cpp")],
        [*CXX, "-o", target("shapes"), source("shapes.cpp")],
        [*C, "-o", target("marks"), source("marks.c")],
        [*CXX, "-o", target("holders"), source("holders.cpp")],
        [*CXX, "-o", target("through"), source("through.cpp")],
        [*CXX, "-o", target("throws"), source("throws.cpp")],
        ["c++", "-O2", "-std=c++17", "-s", "-o", target("throws-bare"), source("throws.cpp")]
        + ["-Wl,--export-dynamic"],
        [*CXX, "-O1", "-static", "-o", target("throws-static"), source("throws.cpp")],
        [*CXX, "-O2", "-o", target("through-o2"), source("through.cpp")],
        [*C, "-o", target("rounds"), source("rounds.c")],
        [*C, "-O1", "-o", target("steps"), source("steps.c")],
        [*C, "-o", target("puppet"), source("puppet.c")],
        [*C, "-o", target("pulse"), source("pulse.c")],
        [*C, "-o", target("waits"), source("waits.c")],
        [*C, "-o", target("arrays"), source("arrays.c")],
        [*C, "-o", target("prints"), source("prints.c")],
        [*C, "-o", target("turns"), source("turns.c")],
        [*C, "-o", target("fibers"), source("fibers.c")],
        [*C, "-o", target("spins"), source("spins.c")],
        [*C, "-o", target("stops"), source("stops.c")],
        [*C, "-o", target("uring"), source("uring.c")],
        [*C, "-o", target("target"), source("target.c")],
        [*C, "-o", target("desk"), source("desk.c")],
        [*C, "-o", target("trip"), source("trip.c"), "-ldl"],
        [*C, "-O1", "-o", target("inlined"), source("inlined.c")],
        [*CXX, "-std=c++17", "-o", target("ledger"), source("ledger.cpp")],
        [*CXX, "-std=c++17", "-pthread", "-o", target("stdwaits"), source("stdwaits.cpp")],
    ]
    recipes += [
        [*CXX, "-Wl,-z,lazy", *flags, "-o", target(name), source("unwinds.cpp")]
        for name, flags in UNWINDS.items()
    ]
    recipes = [r for r in recipes if shutil.which(r[0])]  # only the C++ compiler may lack
    if os.uname().machine == "x86_64":
        return recipes
    return [r for r in recipes if not any(source(name) in r for name in X86_64_ONLY)]


def find(built: Path, name: str) -> str:
    """The path of a program; skips the test where it needs a compiler that this machine has not."""
    if not (built / name).exists() and shutil.which("c++") is None:
        pytest.skip(f"no C++ compiler for {name}")
    return str(built / name)


def build() -> Path:
    """The folder with the built programs; RuntimeError with the compiler's words."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for compiler in filter(shutil.which, ("cc", "c++")):
        said = subprocess.run([compiler, "--version"], capture_output=True, check=True)
        digest.update(said.stdout)
    place = CACHE / "programs" / digest.hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a run beside this one may be at it
        if not place.is_dir():
            fresh = Path(tempfile.mkdtemp(dir=place.parent))
            try:
                _compile(_recipes(fresh))
                os.rename(fresh, place)  # complete or not there
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return place


def _compile(recipes: List[List[str]]) -> None:
    """Run them, as many at once as there are processors; libraries first, programs need them."""
    libraries = [recipe for recipe in recipes if "-shared" in recipe]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for stage in (libraries, [recipe for recipe in recipes if recipe not in libraries]):
            wrong = [text for text in pool.map(_compiled, stage) if text]
            if wrong:
                raise RuntimeError("\n".join(wrong))


def _compiled(command: List[str]) -> str:
    """What is wrong; "" when it is built."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join(command) + "\n" + done.stderr if done.returncode else ""
