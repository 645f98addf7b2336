"""tools/fresh CACHE [NAME...]: the README's two commands and the unit tests on minimal machines.

    CACHE/NAME/root              that distribution as debootstrap(8) --variant=minbase leaves it
    CACHE/NAME/VARIANT-USER.log  what was said there
    CACHE/debootstrap            its package, unpacked, not installed

Each variant is a copy of the root with the packages that README.md names, in namespaces of its own
(unshare(1)), with a clean clone of this checkout's commit.  What cannot be had is skipped with its
reason.  NAME/VARIANT and NAME/VARIANT/USER are parts of it.  A root may be given:
GDB_UFFD_FRESH_ROOTS="ubuntu-22.04=/srv/jammy:fedora=/srv/fedora".
Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "matrix"), str(Path(__file__).parent)]

import machine  # noqa: E402
from packages import Lacking  # noqa: E402

SUITES = {
    "debian-11": "bullseye",
    "debian-12": "bookworm",
    "debian-13": "trixie",
    "ubuntu-22.04": "jammy",
}


class Variant(NamedTuple):
    """What is there beside README.md's packages, and where each user's checkout lies."""

    packages: Tuple[str, ...]
    places: Dict[str, str]


HOME = f"/home/{machine.USER}"
VARIANTS = {
    # Others may not enter root's home; the user's path has spaces.
    "minimal": Variant(
        (), {"root": "/root/gdb_uffd", machine.USER: f"{HOME}/with two spaces/gdb_uffd"}
    ),
    "gdb-headers": Variant(
        ("gdb", "python3-dev"), {"root": "/srv/gdb_uffd", machine.USER: f"{HOME}/gdb_uffd"}
    ),
}
COMMANDS = {
    "make": "make",
    "make demo": "make demo",
    "unit tests": "make test PYTEST_ARGS=tests/unit",
}


def needed() -> List[str]:
    """The packages of README.md's `apt-get install` line."""
    found = re.search(r"`apt-get install ([a-z0-9 .+-]+)`", (ROOT / "README.md").read_text())
    assert found, "README.md names no packages"
    return found[1].split()


def base_root(cache: Path, name: str, given: Dict[str, str]) -> Path:
    """A given root, or a bootstrapped one, kept.  Lacking."""
    if name in given:
        return Path(given[name])
    if name not in SUITES:
        raise Lacking(f"only a given root has it: GDB_UFFD_FRESH_ROOTS={name}=/path/of/a/root")
    root = cache / name / "root"
    if not root.exists():
        part = cache / name / "root.part"
        shutil.rmtree(part, ignore_errors=True)
        machine.bootstrap(cache, SUITES[name], part)
        part.rename(root)
    return root


def last_word(log: Path) -> str:
    """The last line that is not make's own."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("make")), "")


def tried(root: Path, place: str, user: str, log: Path) -> List[str]:
    """A cell for each command: "ok" and seconds, or "FAILS" or "skipped" and why."""
    target = root / place.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(target)], check=True)
    if user != "root":
        machine.enter(root, f"chown -R {user}:{user} {HOME}", "root", log)
    cells: List[str] = []
    for command in COMMANDS.values():
        began = time.monotonic()
        there = f"cd '{place}' && {command}"
        status = machine.enter(root, there, user, log, machine.named_paths())
        lacking = target / ".cache" / "gdb.skipped"
        if status == 0:
            cells.append(f"ok {time.monotonic() - began:.0f} s")
        elif command == "make demo" and lacking.exists():
            cells.append(f"skipped: {lacking.read_text().strip()}")
        else:
            cells.append(f"FAILS: {last_word(log)}")
    return cells


def rows(cache: Path, asked: str, given: Dict[str, str]) -> Iterator[List[str]]:
    """One row for each variant and user of what is asked for.  Lacking."""
    name, *parts = asked.split("/")
    base = base_root(cache, name, given)
    copy = cache / name / "copy"
    for label, variant in VARIANTS.items():
        if parts[:1] not in ([], [label]):
            continue
        shutil.rmtree(copy, ignore_errors=True)
        copy.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(copy)], check=True)
        try:
            machine.prepare(copy)
            log = cache / name / f"{label}.log"
            log.write_bytes(b"")
            if machine.enter(copy, "apt-get -q update", "root", log):
                raise Lacking(f"apt-get update: {last_word(log)}")
            install = ["apt-get -qy --no-install-recommends install", *needed(), *variant.packages]
            if machine.enter(copy, " ".join(install), "root", log):
                yield [name, label, "root", f"FAILS: apt-get install: {last_word(log)}"]
                continue
            for user, place in variant.places.items():
                if parts[1:] not in ([], [user]):
                    continue
                log = cache / name / f"{label}-{user}.log"
                log.write_bytes(b"")
                yield [name, label, user, *tried(copy, place, user, log)]
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def shown(table: List[List[str]]) -> str:
    """The table; what a cell says after its colon stands below it."""
    short = [[cell.partition(":")[0] for cell in row] for row in table]
    short = [[*row, *[""] * (len(table[0]) - len(row))] for row in short]
    widths = [max(map(len, column)) for column in zip(*short)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in short]
    for row in table:
        for column, cell in zip(table[0], row):
            what, colon, why = cell.partition(": ")
            if colon:
                lines.append(" ".join([*filter(None, row[:3]), f"({column}) {what}: {why}"]))
    return "\n".join(lines)


def main() -> int:
    """0 when everything that could be had went well."""
    cache = Path(sys.argv[1]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    pairs = [p.split("=", 1) for p in os.environ.get("GDB_UFFD_FRESH_ROOTS", "").split(":") if p]
    given = {pair[0]: pair[-1] for pair in pairs}
    table = [["machine", "variant", "user", *COMMANDS]]
    if subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD"], check=False).returncode:
        print("fresh: what is not committed is not tried", file=sys.stderr)
    for name in sys.argv[2:] or [*SUITES, *(n for n in given if n not in SUITES)]:
        try:
            for row in rows(cache, name, given):
                table.append(row)
                print(f"fresh: {', '.join(row)}", file=sys.stderr, flush=True)
        except (Lacking, OSError, subprocess.SubprocessError) as why:
            table.append([name, "", "", f"skipped: {why}"])
    print(shown(table))
    return int(any("FAILS" in cell for row in table for cell in row))


if __name__ == "__main__":
    sys.exit(main())
