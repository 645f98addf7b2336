"""`make mutants`: does a test fail when a line is wrong?

MUTANTS_ARGS="--count 30 --seed 2 --only gdb_uffd/trace".  Draws places in the package (Python and
C), changes one at a time in a copy of the checkout, and runs the test files that may notice it
(reach.py: by imports and words, the `--files` nearest ones, until one fails, and with `--whole`
all others that reach it).  So without that a survivor is a change that *these* do not notice;
`--again K` makes the K-th place of the seed once more.  What cannot be compiled, or hangs, counts
as noticed.  It ends in a table by folder and the survivors, each of which is equivalent to what
stood there, or a hole.  A minute for each place; the same seed draws the same places as long as the
sources are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from places import Place, of_checkout
from reach import Reach

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
NOTICED, SURVIVES, BROKEN = "noticed", "survives", "no tests"


def make_copy(folder: Path) -> Path:
    """The checkout with a virtual environment that imports the copy's package."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    native = [str(p.relative_to(ROOT)) for p in (ROOT / "gdb_uffd").rglob("*.so")]
    for name in [*filter(None, names), *native]:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for name in (".venv-gdb", ".cache"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (own,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    (theirs,) = (ROOT / ".venv" / "lib").glob("python*/site-packages")
    (own / "copy.pth").write_text(f"{folder}\n{theirs}\n")
    return folder


def build(copy: Path) -> bool:
    """Compile the native module of the copy; False when that fails."""
    python = copy / ".venv" / "bin" / "python"
    command = ["tools/with-python-headers", *[str(python)] * 2, "setup.py", "--quiet", "build_ext"]
    done = subprocess.run([*command, "--inplace", "--force"], cwd=copy, capture_output=True)
    return done.returncode == 0


def run_tests(copy: Path, tests: List[Path], seconds: float) -> str:
    """What the tests of those files say of the copy."""
    names = [str(test.relative_to(ROOT)) for test in tests]
    # The plain build is enough for C.
    command = [copy / ".venv/bin/python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    child = subprocess.Popen(
        [*map(str, command), "--tb=no", *names, "-k", "not asan"],
        cwd=copy, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        status = child.wait(seconds)
    except subprocess.TimeoutExpired:
        return NOTICED
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return {0: SURVIVES, 5: BROKEN}.get(status, NOTICED)


def tried(copy: Path, place: Place, tests: List[Path], seconds: float) -> str:
    """The place changed in the copy, tested, and put back."""
    path = copy / place.path
    before = path.read_text(encoding="utf-8")
    path.write_text(place.changed(before), encoding="utf-8")
    try:
        if path.suffix == ".c" and not build(copy):
            return NOTICED
        return run_tests(copy, tests, seconds)
    finally:
        path.write_text(before, encoding="utf-8")
        if path.suffix == ".c":
            for made in (ROOT / "gdb_uffd").rglob("*.so"):
                shutil.copy2(made, copy / made.relative_to(ROOT))


def table(results: List[Tuple[Place, str]]) -> str:
    """Places and noticed ones by folder."""
    counts: Dict[str, List[int]] = {}
    for place, result in results:
        folder = "/".join(Path(place.path).parts[1:-1][:1]) or "."
        row = counts.setdefault(folder, [0, 0])
        row[0] += 1
        row[1] += result == NOTICED
    counts["all"] = [sum(row[i] for row in counts.values()) for i in (0, 1)]
    head = f"{'folder':12} {'places':>6} {'noticed':>8}"
    rows = [f"{n:12} {a:6} {b:8} {100 * b // max(a, 1):4} %" for n, (a, b) in counts.items()]
    return "\n".join([head, *rows])


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser("mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="PREFIX", help="of a path in the checkout")
    parser.add_argument("--files", type=int, default=10, help="test files for each place")
    parser.add_argument("--whole", action="store_true", help="survivors meet every test: long")
    parser.add_argument("--seconds", type=float, default=600, help="for the tests of a place")
    parser.add_argument("--again", type=int, metavar="K")
    parser.add_argument("--list", action="store_true", help="the places and their tests, no more")
    options = parser.parse_args(arguments)
    places, reach = of_checkout(ROOT, options.only), Reach(ROOT)
    drawn = random.Random(options.seed).sample(places, min(options.count, len(places)))
    results: List[Tuple[Place, str]] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        copy = Path(name) if options.list else make_copy(Path(name))
        for number, place in enumerate(drawn):
            if options.again not in (None, number):
                continue
            tests = reach.of(ROOT / place.path, options.files)
            began = time.monotonic()
            said = "" if options.list else tried(copy, place, tests, options.seconds)
            if options.whole and said in (SURVIVES, BROKEN):
                others = reach.others(ROOT / place.path, tests)
                said = tried(copy, place, others, 10 * options.seconds)
            results.append((place, said))
            seconds = f"{time.monotonic() - began:.0f} s"
            print(f"{number:3} {said:8} {seconds:>5}  {place}", flush=True)
            if options.list or said != NOTICED:
                print("    tests: " + " ".join(str(t.relative_to(ROOT / "tests")) for t in tests))
    if not options.list:
        print(f"\n{table(results)}\n\nsurvivors:")
        print("\n".join(f"  {place}" for place, said in results if said != NOTICED) or "  none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
