"""Travelling in a trace of 1,000 snapshots: `uffd goto`, `uffd map`, `uffd when`.

The trace is of the benchmark's inferior (64 MiB of data), with 1 % of its pages written anew
between snapshots.  Yardstick: without a trace one opens a core of each instant in gdb.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from harness import traces  # noqa: E402

from gdb_uffd.trace.core.core import CoreSnapshot, open_core  # noqa: E402

SNAPSHOTS = 1000
PAGES = 16384  # of the inferior's array
DIRTY = PAGES // 100

GOTO_LIMIT_MS, MAP_LIMIT_MS = 50.0, 10_000.0
"""What shall be reached, per move and per 1,000 snapshots."""

IN_GDB = """
import gdb, json, random, time
def spent_ms(command):
    began = time.perf_counter()
    gdb.execute(command, to_string=True)
    return (time.perf_counter() - began) * 1e3
places = random.Random(1)
gdb.execute("uffd snapshots", to_string=True)  # the list is asked for once
figures = {"goto": [spent_ms(f"uffd goto {places.randrange(LAST + 1)}") for _ in range(60)]}
for name, command in COMMANDS.items():
    figures[name] = [spent_ms(command)]
print("FIGURES " + json.dumps(figures))
"""

COMMANDS = {
    "map f(x)": "uffd map -json push(7)",
    "map variable": "uffd map -json counter",
    "when": f"uffd when counter == {1000 + SNAPSHOTS - 1}",
    "when -monotonic f(x)": f"uffd when -monotonic push(7) >= {1000 + SNAPSHOTS - 1}",
    "changes": f"uffd changes -json 10 {SNAPSHOTS - 1}",
}


def make_trace(core: Path, path: Path) -> None:
    """1,000 snapshots: `counter` counts, and 1 % of `big` changes each time."""
    chance = random.Random(5)

    def edits(snapshot: CoreSnapshot) -> traces.Edit:
        counter, big = snapshot.symbol("counter"), snapshot.symbol("big")
        if counter is None or big is None:
            sys.exit("bench: the inferior has no counter or no big")

        def edit(number: int) -> Dict[int, bytes]:
            pages = chance.sample(range(PAGES), DIRTY)
            out = {big + n * 4096 + 16: number.to_bytes(8, "little") for n in pages}
            return {**out, counter: (1000 + number).to_bytes(4, "little")}

        return edit

    traces.recorded(core, path, SNAPSHOTS, edits)


def travel(gdb: Path, core: Path, work: Path) -> List[Tuple[str, float, float, float]]:
    """(what, ours in ms, limit in ms or 0, the same with cores in ms or 0)."""
    path = work / "travel.uffd"
    make_trace(core, path)
    base = [str(gdb), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    script = work / "travel-in-gdb.py"
    script.write_text(f"COMMANDS, LAST = {COMMANDS!r}, {SNAPSHOTS - 1}\n{IN_GDB}")
    command = [*base, "-ex", f"source {ROOT / 'gdb_uffd' / 'gdbinit.py'}"]
    command += ["-ex", f"uffd spawn {path}", "-x", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    found = re.search(r"FIGURES (.*)", done.stdout)
    if not found:
        sys.exit(f"bench: {gdb} gave no figures:\n{done.stdout}{done.stderr}")
    figures: Dict[str, List[float]] = json.loads(found[1])
    one = one_core_ms(base, core)
    many = one * SNAPSHOTS
    goto = figures["goto"]
    rows = [
        ("uffd goto, anywhere (median)", statistics.median(goto), GOTO_LIMIT_MS, one),
        ("uffd goto, the slowest of 60", max(goto), GOTO_LIMIT_MS, one),
        ("uffd map push(7)", figures["map f(x)"][0], MAP_LIMIT_MS, many),
        ("uffd map counter", figures["map variable"][0], MAP_LIMIT_MS, many),
        ("uffd when, true at the last", figures["when"][0], MAP_LIMIT_MS, many),
        ("uffd when -monotonic push(7) ...", figures["when -monotonic f(x)"][0], 0.0, 0.0),
        ("uffd changes", figures["changes"][0], 0.0, 0.0),
    ]
    return rows


def one_core_ms(base: List[str], core: Path) -> float:
    """`core-file` and a look at a variable in a gdb that has the program loaded, milliseconds."""
    executable = open_core(str(core), None).executable
    look = ["-ex", f"core-file {core}", "-ex", "print counter"]
    spent: List[List[float]] = [[], []]
    for _ in range(5):
        for number, more in enumerate(([], look)):
            began = time.perf_counter()
            subprocess.run([*base, executable, *more], capture_output=True, check=True)
            spent[number].append((time.perf_counter() - began) * 1e3)
    return statistics.median(spent[1]) - statistics.median(spent[0])


def show(rows: List[Tuple[str, float, float, float]]) -> None:
    """The table; a timing decides nothing here."""
    print(f"\ntravelling in {SNAPSHOTS:,} snapshots; yardstick: core-file on as many cores")
    print(f"{'':47}{'ours, ms':>12}{'cores, ms':>15}{'ratio':>8}  to reach")
    for name, ours, limit, cores in rows:
        yard = f"{cores:15.1f}{ours / cores:8.3f}" if cores else f"{'':23}"
        goal = f"<= {limit:,.0f} ms{'' if ours <= limit else '  NOT reached'}" if limit else ""
        print(f"{name:47}{ours:12.1f}{yard}  {goal}".rstrip())
