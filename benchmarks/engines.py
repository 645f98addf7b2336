"""What a written page costs under each tracking engine, as ratios to soft-dirty's.

`benchmarks/engines.py` runs itself under the kernel on which all four exist (Debian's 6.12, in
QEMU; `--kernel` names another, `--here` stays on this one).  The core is made before, outside.
An emulated processor is slow, each engine by about as much: the ratios are what counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run import ROOT, Subject, prepare

from gdb_uffd.native import check, lib
from gdb_uffd.protocol.model import ENGINES
from gdb_uffd.replay.interface import SOFTWARE
from gdb_uffd.replay.trackers import kernel

SIZES = (256, 2048)
"""Pages that a call writes: soft-dirty walks all that are there at each one that it feeds."""

ROUNDS = 5
MARK = "FIGURES "
Figures = Dict[str, Dict[str, float]]


def spent_us(subject: Subject, address: int, pages: int) -> float:
    """Running dirty(pages), until every page that it wrote is known; and undone."""
    d = subject.diversion
    landing = subject.push_frame(address, pages)
    began = time.perf_counter()
    subject.run()
    check(lib.tracker_sync(d.vessel.pager))
    spent = (time.perf_counter() - began) * 1e6
    d.remove_breakpoint(SOFTWARE, landing, 1)
    d.call_end()
    report = d.end(False)
    written = sum("program" in page.writers for page in report.pages)
    if written < pages:
        sys.exit(f"engines: {report.engine} saw {written} of {pages} pages")
    return spent


def measure(core: Path) -> Figures:
    """Engine -> column -> microseconds a page.  Of each the least: everything else that runs on the
    machine only adds."""
    working = [name for name in ENGINES if not kernel().failure(name)]
    figures: Figures = {name: {} for name in working}
    subject = Subject(core)
    dirty = subject.address("dirty")
    for _ in range(ROUNDS):
        for name, pages in itertools.product(working, SIZES):
            subject.diversion.reset()
            subject.diversion.set_engine(name)
            spent_us(subject, dirty, 1)  # the code, the stack, the frame
            for column in (f"{pages} fed, written", f"{pages} written"):
                spent = spent_us(subject, dirty, pages) / pages
                best = figures[name].get(column, spent)
                figures[name][column] = min(best, spent)
    subject.close()
    return figures


def show(figures: Figures) -> None:
    """The table; ratios only where there is a soft-dirty to divide by.

    A page that is there already costs soft-dirty no more than the others: what it is known for is
    the price of feeding one, so that is what every figure of a size is divided by.
    """
    base = figures.get("soft-dirty", {})
    columns = list(next(iter(figures.values())))
    print(f"{'a page, us':12}" + "".join(f"{c:>19}  ratio" for c in columns))
    for name, spent in figures.items():
        line = f"{name:12}"
        for column in columns:
            yard = base.get(f"{column.split()[0]} fed, written")
            ratio = f"{spent[column] / yard:7.3f}" if yard else " " * 7
            line += f"{spent[column]:19.1f}{ratio}"
        print(line.rstrip())
    for name in ENGINES:
        if name not in figures:
            print(f"{name:12}does not work there")
    if base:
        print("ratios: to what soft-dirty takes to feed and write a page; published as 1-2 ms")


def under(name: str, core: Path) -> Figures:
    """The figures from the guest."""
    inside = [sys.executable, __file__, "--inside", str(core)]
    command = [sys.executable, str(ROOT / "tools" / "kvrun"), name, shlex.join(inside)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            figures: Figures = json.loads(line[len(MARK) :])
            return figures
    sys.exit(f"engines: no figures from the guest (status {done.returncode}):\n{done.stdout}")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.12", help="as tools/kvrun names them")
    parser.add_argument("--here", action="store_true", help="under the kernel that runs now")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(MARK + json.dumps(measure(options.inside)))
        return 0
    with tempfile.TemporaryDirectory(prefix="gdb-uffd-bench-", dir=ROOT / ".cache") as work:
        core = prepare(Path(work))[2]
        figures = measure(core) if options.here else under(options.kernel, core)
    where = "this kernel" if options.here else f"Linux {options.kernel} in QEMU"
    print(f"least of {ROUNDS} rounds, {where}")
    show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
