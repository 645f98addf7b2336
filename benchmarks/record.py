"""Recording: a snapshot's pause against gcore, the trace's size, the slow-down between snapshots.

The inferior has 1 GiB resident (or what fits), of which 1 % is written between snapshots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SNAPSHOTS = 100
PAUSE_RATIO, SIZE_RATIO, SLOW_RATIO = 100.0, 1.2, 1.1
"""To be reached: gcore by pause at least; trace by its distinct pages, time by time at most."""

LOOP_ROUNDS, LOOP_STOPS = 150, 7

IN_GDB = """
import gdb, json, time
def run(command):
    began = time.perf_counter()
    text = gdb.execute(command, to_string=True)
    return (time.perf_counter() - began) * 1e3, text
from gdb_uffd.client.recording import recordings
figures = {"pause": [], "changed": []}
def snapshot():
    run("uffd record snapshot")
    last = recordings.active().recorder.last
    figures["pause"].append(last.pause_us / 1e3)
    figures["changed"].append(last.pages_changed)
"""

PAUSES = """
run(f"uffd record start {TRACE}")
for _ in range(SNAPSHOTS):
    snapshot()
    run("continue")
run("uffd record stop")
figures["gcore"] = run(f"gcore {TRACE}.core")[0]
print("FIGURES " + json.dumps(figures))
"""

LOOPS = """
def loop():
    run("continue")
    return float(gdb.parse_and_eval("spent_ms"))
figures["plain"], figures["recorded"] = [], []
loop()
for _ in range(STOPS):
    figures["plain"].append(loop())
run(f"uffd record start {TRACE}")
snapshot()
loop()
for _ in range(STOPS):
    snapshot()
    figures["recorded"].append(loop())
run("uffd record stop")
print("FIGURES " + json.dumps(figures))
"""


def build(work: Path) -> Path:
    """The inferior, freshly built."""
    program = work / "writer"
    cc = os.environ.get("CC", "cc")
    subprocess.run([cc, "-g", "-O2", "-o", program, HERE / "writer.c"], check=True)
    return program


def in_gdb(
    gdb: Path, program: Path, arguments: List[str], script: str, **names: Any
) -> Dict[str, Any]:
    """Run `script` where the program stands in `ready`; its figures."""
    path = program.with_name("script.py")
    path.write_text("".join(f"{n} = {v!r}\n" for n, v in names.items()) + IN_GDB + script)
    command = [str(gdb), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    command += ["-ex", f"source {ROOT / 'gdb_uffd' / 'gdbinit.py'}", "-ex", "break ready"]
    command += ["-ex", "run", "-x", str(path), "-ex", "kill", "--args", str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    found = re.search(r"FIGURES (.*)", done.stdout)
    if not found:
        sys.exit(f"bench: {gdb} gave no figures:\n{done.stdout}{done.stderr}")
    figures: Dict[str, Any] = json.loads(found[1])
    return figures


def room_mib(work: Path) -> int:
    """MiB of the inferior: 1,024, or less where memory or disk is short."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(x.split()[1]) for x in file if x.startswith("MemAvailable")) >> 10
    free = shutil.disk_usage(work).free >> 20
    return min(1024, available // 4, free // 8)


def pauses(gdb: Path, work: Path) -> List[Tuple[str, str, str, bool]]:
    """(what, figures, what to reach, whether it was) of pause and size."""
    program, trace = build(work), work / "bench.uffd"
    mib = room_mib(work)
    figures = in_gdb(gdb, program, [str(mib)], PAUSES, TRACE=str(trace), SNAPSHOTS=SNAPSHOTS)
    core = trace.with_name("bench.uffd.core")
    core_bytes = core.stat().st_size
    core.unlink()
    size = sum(f.stat().st_size for f in trace.iterdir())
    shutil.rmtree(trace)
    distinct = sum(figures["changed"]) * 4096
    pause = statistics.median(figures["pause"][1:])
    ratio, gcore = figures["gcore"] / pause, figures["gcore"]
    changed = statistics.median(figures["changed"][1:])
    return [
        (
            f"pause, {mib} MiB, {changed:.0f} pages written",
            f"{pause:.1f} ms; gcore {gcore:.0f} ms: {ratio:.0f} x shorter",
            f">= {PAUSE_RATIO:.0f} x",
            ratio >= PAUSE_RATIO,
        ),
        ("pause of the first snapshot", f"{figures['pause'][0]:.0f} ms", "", True),
        (
            f"size of {SNAPSHOTS} snapshots",
            f"{size >> 20} MiB; distinct pages {distinct >> 20} MiB: {size / distinct:.3f}; "
            f"as cores {core_bytes * SNAPSHOTS >> 20} MiB",
            f"<= {SIZE_RATIO}",
            size <= SIZE_RATIO * distinct,
        ),
    ]


def slowdown(gdb: Path, work: Path) -> List[Tuple[str, str, str, bool]]:
    """A loop that only writes, with a snapshot before each run of it and without."""
    program, trace = build(work), work / "loop.uffd"
    arguments = ["64", str(LOOP_ROUNDS)]
    figures = in_gdb(gdb, program, arguments, LOOPS, TRACE=str(trace), STOPS=LOOP_STOPS)
    shutil.rmtree(trace)
    plain, recorded = (statistics.median(figures[n]) for n in ("plain", "recorded"))
    ratio = recorded / plain
    return [
        (
            "slow-down between snapshots, write loop",
            f"{recorded:.0f} ms against {plain:.0f} ms: {ratio:.3f}",
            f"<= {SLOW_RATIO}",
            ratio <= SLOW_RATIO,
        )
    ]


def show(gdb: Path, work: Path) -> None:
    """Measure and print the rows."""
    print("recording: pause and size against gcore, a write loop against itself unrecorded")
    for name, figures, goal, reached in [*pauses(gdb, work), *slowdown(gdb, work)]:
        print(f"{name:47} {figures}  {goal}{'' if reached else '  NOT reached'}".rstrip())


if __name__ == "__main__":
    import tempfile

    ours = ROOT / ".venv-gdb" / "bin" / "gdb"
    with tempfile.TemporaryDirectory(prefix="gdb-uffd-bench-") as name:
        show(ours if ours.exists() else Path(shutil.which("gdb") or "gdb"), Path(name))
