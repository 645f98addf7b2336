"""What the system-call policy costs: calls with no system call, and with a thousand.

Yardsticks: the same call with `set uffd syscalls all`, where the kernel carries out everything but
who the program was and what time it is; and for those, the call without any system call plus what a
live process needs for a thousand of them.  The two sides alternate within one gdb.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 15
CALLS = 1000
KINDS = {
    "p": "getppid", "c": "clock_gettime", "w": "write", "t": "stat",
    "o": "open, fstat, read, close", "g": "sigprocmask", "f": "futex wake",
    "r": "mmap, munmap", "m": "all of these in turn",
}  # fmt: skip
ANSWERED_ALWAYS = "pc"
"""Under `syscalls all`, too: their yardstick is a live process."""

IN_GDB = """
import gdb, json, statistics, time
def us(command):
    began = time.perf_counter()
    gdb.execute(command, to_string=True)
    return (time.perf_counter() - began) * 1e6
def rounds(levels, calls):
    spent = {}
    for level in levels:
        if level:
            gdb.execute("set uffd syscalls " + level, to_string=True)
            us(calls[0][1])
        for name, command in calls:
            spent.setdefault((level, name), []).append(us(command))
    return spent
spent = {}
for _ in range(ROUNDS):
    for key, values in rounds(LEVELS, CALLS).items():
        spent.setdefault("/".join(key), []).extend(values)
print("FIGURES " + json.dumps({key: statistics.median(v) for key, v in spent.items()}))
"""


class Row(NamedTuple):
    """Microseconds of one `uffd call`, and of its yardstick."""

    name: str
    ours: float
    yardstick: float
    target: Optional[float]


def run_gdb(gdb: Path, before: List[str], verb: str, levels: List[str]) -> Dict[str, float]:
    """Medians by "level/kind", microseconds."""
    calls: List[Tuple[str, str]] = [("", f"{verb} ask('m', 0)")]
    calls += [(kind, f"{verb} ask('{kind}', {CALLS})") for kind in KINDS]
    head = f"ROUNDS, LEVELS, CALLS = {ROUNDS}, {levels!r}, {calls!r}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(head + IN_GDB)
        script.flush()
        command = [str(gdb), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
        for line in before:
            command += ["-ex", line]
        result = subprocess.run(
            [*command, "-x", script.name], capture_output=True, text=True, check=False, timeout=600
        )
    found = re.search(r"FIGURES (.*)", result.stdout)
    if not found:
        sys.exit(f"bench: {gdb} gave no figures:\n{result.stdout}{result.stderr}")
    figures: Dict[str, float] = json.loads(found[1])
    return figures


def policy(gdb: Path, live_gdb: Path, subject: Path, core: Path) -> List[Row]:
    """The rows of the table; `live_gdb` must be able to call functions of a live process."""
    started = [f"source {ROOT / 'gdb_uffd' / 'gdbinit.py'}", f"uffd spawn {core}"]
    ours = run_gdb(gdb, started, "uffd call", ["safe", "all"])
    live = run_gdb(live_gdb, [f"file {subject}", "break ready", "run x >/dev/null"], "print", [""])
    rows = [Row("no system call", ours["safe/"], ours["all/"], 1.3)]
    for kind, name in KINDS.items():
        yardstick = ours[f"all/{kind}"]
        if kind in ANSWERED_ALWAYS:
            yardstick = ours["all/"] + live[f"/{kind}"] - live["/"]
        rows.append(Row(f"{CALLS:,} x {name}", ours[f"safe/{kind}"], yardstick, 3.0))
    return rows


def show(rows: List[Row]) -> None:
    """Print the table."""
    print("\n`uffd call` with the policy, against the same call without it")
    print(f"{'':47}{'safe, us':>12}{'without, us':>15}{'ratio':>8}  to reach")
    for row in rows:
        ratio = row.ours / row.yardstick
        goal = "" if row.target is None else f"<= {row.target:g}"
        goal += "" if row.target is None or ratio <= row.target else "  NOT reached"
        print(f"{row.name:47}{row.ours:12.1f}{row.yardstick:15.1f}{ratio:8.2f}  {goal}")


def main() -> int:
    """Alone: builds its own subject."""
    import run  # which imports this module

    with tempfile.TemporaryDirectory(prefix="gdb-uffd-bench-") as name:
        _floor, subject, core = run.prepare(Path(name))
        show(policy(run.any_gdb(), run.any_gdb(), subject, core))
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
