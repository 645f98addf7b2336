"""`make bench`: every figure in one run, side by side, as ratios.

Yardsticks: floor.c (the bare mechanics in one C file), a native `print f()` of gdb 18.1 on the live
process, and feeding everything eagerly.  Each figure is the median of several rounds; the rounds
of what is compared alternate, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import policy
import record
import travel

from gdb_uffd.native import check, lib
from gdb_uffd.protocol.model import GPR
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.interface import SOFTWARE, Resume, Stop
from gdb_uffd.trace.core.core import open_core

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROUNDS = 15
FAULTS = 8192
GDB18 = ROOT / ".venv-gdb" / "bin" / "gdb"


class Silent:
    """The client of a benchmark: no input, no output."""

    def fileno(self) -> int:
        return -1

    def interrupt_requested(self) -> bool:
        return False

    def output(self, data: bytes) -> None:
        del data

    def runs_on(self, seconds: float) -> None:
        del seconds


def prepare(work: Path) -> Tuple[Path, Path, Path]:
    """(floor, subject, its core), freshly built."""
    floor, subject = work / "floor", work / "subject"
    cc = os.environ.get("CC", "cc")
    subprocess.run([cc, "-O2", "-w", "-o", floor, HERE / "floor.c", "-lpthread"], check=True)
    subprocess.run([cc, "-g", "-O1", "-o", subject, HERE / "subject.c"], check=True)

    def unlimited() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    subprocess.run([subject], cwd=work, preexec_fn=unlimited, check=False)
    cores = sorted(work.glob("core*"))
    if not cores:
        sys.exit("bench: the kernel wrote no core here (kernel.core_pattern, ulimit -c)")
    return floor, subject, cores[0]


def run_floor(floor: Path, core: Path, address: int, *args: int, **env: str) -> Dict[str, float]:
    """One run of the yardstick: microseconds by name."""
    command = [str(floor), str(core), f"{address:x}", *map(str, args)]
    result = subprocess.run(
        command, env={**os.environ, "PIN": "1", **env}, capture_output=True, text=True, check=True
    )
    numbers = re.findall(r"(\w+) ([0-9.]+)", result.stdout.partition("us:")[2])
    faults = re.search(r"faults=(\d+)", result.stdout)
    return {**{k: float(v) for k, v in numbers}, "faults": float(faults[1]) if faults else 0.0}


class Subject:
    """The core opened as the server opens it; calls made as gdb makes them."""

    def __init__(self, core: Path) -> None:
        self.snapshot = open_core(str(core), None)
        self.diversion = Diversion(self.snapshot)
        self.tid = self.snapshot.threads[0].tid

    def address(self, name: str) -> int:
        found = self.snapshot.symbol(name)
        if found is None:
            sys.exit(f"bench: no symbol {name}")
        return found

    def push_frame(self, address: int, argument: int) -> int:
        """As gdb does it: frame, breakpoint, registers.  Where the function will return to."""
        d = self.diversion
        d.begin()
        d.call_begin(address, False)
        registers = d.registers(self.tid).copy()
        stack = (registers.gpr[GPR["rsp"]] - 512 & ~15) - 8
        landing = stack + 64
        d.write_memory(stack, landing.to_bytes(8, "little"))
        d.insert_breakpoint(SOFTWARE, landing, 1)
        values = {"rip": address, "rsp": stack, "rdi": argument, "rax": 0}
        for name, value in {**values, "orig_rax": (1 << 64) - 1}.items():
            registers.gpr[GPR[name]] = value
        d.set_registers(self.tid, registers)
        return landing

    def run(self) -> Stop:
        return self.diversion.resume(Resume(self.tid, "c"), Silent())

    def call(self, address: int, argument: int, keep: bool = False) -> int:
        """One whole call: transaction, frame, run, result, report, undo."""
        d = self.diversion
        landing = self.push_frame(address, argument)
        stop = self.run()
        d.remove_breakpoint(SOFTWARE, landing, 1)
        result = d.registers(self.tid).gpr[GPR["rax"]]
        d.call_end()
        d.end(keep)
        if stop.breakpoint != "swbreak":
            sys.exit(f"bench: the call did not return: {stop}")
        return result

    def close(self) -> None:
        self.diversion.close()
        self.snapshot.close()


def timed_us(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e6


def in_server(floor: Path, core: Path) -> List[Tuple[str, float, float, Optional[float]]]:
    """(what, ours, yardstick, ratio to reach), microseconds."""
    figures: Dict[str, List[Tuple[float, float]]] = {}

    def add(name: str, ours: float, theirs: float) -> None:
        figures.setdefault(name, []).append((ours, theirs))

    probe = Subject(core)
    push, touch, dirty = (probe.address(n) for n in ("push", "touch", "dirty"))
    probe.close()
    for _ in range(ROUNDS):
        theirs = run_floor(floor, core, push, 7, REPEAT="50")
        began = time.perf_counter()
        subject = Subject(core)
        opened = (time.perf_counter() - began) * 1e6
        add("open the core", opened, theirs["parse"])
        call = functools.partial(subject.call, push, 7)
        first = timed_us(call)
        add(
            "materialise + first call",
            first,
            theirs["spawn"] + theirs["map"] + theirs["call1"] + theirs["scan"],
        )
        repeated = statistics.median(timed_us(call) for _ in range(50))
        add("repeated call, with report and undo", repeated, theirs["percall"] + theirs["scan"])
        for name, address in (("read", touch), ("write", dirty)):
            base = run_floor(floor, core, address, 1)["call1"]
            yard = (run_floor(floor, core, address, FAULTS)["call1"] - base) / FAULTS
            add(f"one {name} fault", fault_cost(subject, address), yard)
        subject.close()
        eager = run_floor(floor, core, push, 7, EAGER="1")
        add("first call, against feeding all pages first", first, eager["total"])
        add("the same with our own pager", first, eager_us(core, push))
    targets = {"materialise + first call": 4.0, "one read fault": 1.5, "one write fault": 1.5}
    rows = []
    for name, pairs in figures.items():
        ours, yard = (statistics.median(p[i] for p in pairs) for i in (0, 1))
        rows.append((name, ours, yard, targets.get(name)))
    return rows


def fault_cost(subject: Subject, address: int) -> float:
    """Microseconds a fault in a fresh vessel: the run alone, without report and undo."""
    d = subject.diversion
    d.reset()
    subject.call(address, 1, keep=True)
    pager = d.vessel.pager
    landing = subject.push_frame(address, FAULTS)
    before = int(pager.faults)
    spent = timed_us(subject.run)
    faults = int(pager.faults) - before
    d.remove_breakpoint(SOFTWARE, landing, 1)
    d.reset()
    return spent / faults


def eager_us(core: Path, push: int) -> float:
    """Opening, materialising, feeding every page, and the same call."""
    subject = Subject(core)

    def everything() -> None:
        vessel = subject.diversion.vessel
        vessel.ensure()
        for segment in subject.snapshot.segments:
            if segment.kind != "unavailable":
                check(lib.feed_range(vessel.pager, segment.start, segment.end))
        subject.call(push, 7)

    spent = timed_us(everything)
    subject.close()
    return spent


IN_GDB = """
import gdb, json, statistics, time
def median_us(command, rounds):
    gdb.execute(command, to_string=True)
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        gdb.execute(command, to_string=True)
        spent.append((time.perf_counter() - began) * 1e6)
    return statistics.median(spent)
print("FIGURES " + json.dumps({c: median_us(c, 40) for c in COMMANDS}))
"""


def run_gdb(gdb: Path, before: List[str], commands: List[str], args: List[str]) -> Dict[str, float]:
    """Medians of `commands` in one headless gdb, microseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(f"COMMANDS = {commands!r}\n" + IN_GDB)
        script.flush()
        command = [str(gdb), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
        for line in before:
            command += ["-ex", line]
        command += ["-x", script.name, *args]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found = re.search(r"FIGURES (.*)", result.stdout)
    if not found:
        sys.exit(f"bench: {gdb} gave no figures:\n{result.stdout}{result.stderr}")
    figures: Dict[str, float] = json.loads(found[1])
    return figures


def any_gdb() -> Path:
    """gdb 18.1 where it is there, else the system's."""
    return GDB18 if GDB18.exists() else Path(shutil.which("gdb") or "gdb")


def in_gdb(subject: Path, core: Path) -> List[Tuple[str, float, float, Optional[float]]]:
    gdb = any_gdb()
    started = [f"source {ROOT / 'gdb_uffd' / 'gdbinit.py'}", f"uffd spawn {core}"]
    ours: Dict[str, List[float]] = {}
    native: List[float] = []
    commands = ["print push(7)", "uffd call push(7)", "uffd call -json push(7)"]
    for _ in range(3):
        live = run_gdb(
            gdb, ["break ready", "run"], ["print push(7)"], ["--args", str(subject), "x"]
        )
        native.append(live["print push(7)"])
        for name, value in run_gdb(gdb, started, commands, []).items():
            ours.setdefault(name, []).append(value)
    yard = statistics.median(native)
    targets = {"uffd call push(7)": 5.0}
    return [
        (f"gdb: {name}", statistics.median(values), yard, targets.get(name))
        for name, values in ours.items()
    ]


def spawn_in_gdb(core: Path) -> List[Tuple[str, float, float, Optional[float]]]:
    gdb = any_gdb()
    base = [str(gdb), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    load = ["-ex", f"source {ROOT / 'gdb_uffd' / 'gdbinit.py'}"]
    executable = open_core(str(core), None).executable

    def run(*more: str) -> float:
        return timed_us(lambda: subprocess.run([*base, *more], capture_output=True, check=True))

    ours, theirs = [], []
    for _ in range(5):
        ours.append(run(*load, "-ex", f"uffd spawn {core}"))
        theirs.append(run(executable, "-ex", f"core-file {core}"))
    name = "gdb: start, uffd spawn, quit (against core-file)"
    return [(name, statistics.median(ours), statistics.median(theirs), None)]


def show(rows: List[Tuple[str, float, float, Optional[float]]]) -> bool:
    reached = True
    print(f"{'':47}{'ours, us':>12}{'yardstick, us':>15}{'ratio':>8}  to reach")
    for name, ours, theirs, target in rows:
        ratio = ours / theirs if theirs else float("nan")
        goal = (
            "" if target is None else f"<= {target:g}{'' if ratio <= target else '  NOT reached'}"
        )
        reached &= target is None or ratio <= target
        print(f"{name:47}{ours:12.1f}{theirs:15.1f}{ratio:8.2f}  {goal}")
    return reached


def main() -> int:
    """Print the table; 0 also when a figure was not reached: a timing decides nothing here."""
    with tempfile.TemporaryDirectory(prefix="gdb-uffd-bench-") as name:
        work = Path(name)
        floor, subject, core = prepare(work)
        rows = in_server(floor, core)
        rows += in_gdb(subject, core)
        rows += spawn_in_gdb(core)
        print("yardsticks: floor.c pinned; native `print push(7)` of gdb; eager feeding")
        show(rows)
        policy.show(policy.policy(any_gdb(), any_gdb(), subject, core))
        travel.show(travel.travel(any_gdb(), core, work))
        record.show(any_gdb(), work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
