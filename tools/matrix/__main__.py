"""`make matrix`: tests on other kernels, gdbs and lldbs, and the table in docs/compatibility.md.

    python tools/matrix [--kernels 6.1,newest] [--aarch64 6.1] [--gdbs 13,18]
        [--lldbs] [--bench] [--table]

Without options everything is run.  What is not run keeps its result from the last time; what cannot
be had says what lacks.  Exit status 1 when a cell failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checks
import debuggers
import foreign
import guest
import kernels
import packages
import table
from checks import FAIL, LACKS, PASS, Check, Result
from packages import Lacking

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
HERE = "this machine"
SLOWNESS = "10"
"""How much longer than usual tests wait in an emulated machine."""

KERNEL_COLUMNS = (
    *("doctor", *(c.name for c in (*checks.ON_KERNELS, *checks.ON_KERNELS_GDB))),
    "its cores here",
)
COLUMNS = {
    "kernel": KERNEL_COLUMNS,
    "aarch64": ("doctor", *(c.name for c in checks.ON_AARCH64)),
    "gdb": tuple(c.name for c in checks.ON_GDBS),
    "lldb": tuple(c.name for c in checks.ON_LLDBS),
    "bench": ("engines",),
}


class Matrix:
    """Results by row and column, kept between runs in .cache/matrix/results.json."""

    def __init__(self) -> None:
        self.cache = (ROOT / ".cache").resolve() / "matrix"
        self.cache.mkdir(parents=True, exist_ok=True)
        self._file = self.cache / "results.json"
        self.rows = self._kept()

    def _kept(self) -> Dict[str, table.Row]:
        try:
            kept = json.loads(self._file.read_text())
            rows = {name: table.Row.load(data) for name, data in kept.items()}
        except (OSError, ValueError, TypeError, KeyError):
            return {}
        for row in rows.values():  # what is no column any more is forgotten
            row.cells = {c: r for c, r in row.cells.items() if c in COLUMNS[row.kind]}
        return rows

    def put(self, name: str, row: table.Row) -> None:
        """Keep a row; say it."""
        self.rows = {**self._kept(), name: row}  # another run may be at other rows
        self._write()
        for column, result in row.cells.items():
            print(f"  {row.label}: {column}: {result.cell()}", flush=True)
            for failed in result.failed:
                print(f"    {failed}", flush=True)

    def _write(self) -> None:
        self._file.write_text(json.dumps({n: asdict(r) for n, r in self.rows.items()}, indent=1))

    def forget(self, kind: str, names: List[str]) -> None:
        """Drop rows of that kind that are no longer wanted."""
        for name in [n for n, r in self.rows.items() if r.kind == kind and n not in names]:
            del self.rows[name]
        self._write()


COMMAND = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--every-gdb", "--durations=5")


def _pytest(
    columns: Tuple[Check, ...], out: Path, name: str, env: Dict[str, str], seconds: int
) -> Dict[str, Result]:
    """pytest on this machine."""
    xml = out / f"{name}.xml"
    xml.unlink(missing_ok=True)
    bound = ["timeout", "--signal=INT", "--kill-after=60", str(seconds)]
    with open(out / f"{name}.log", "w") as log:
        status = subprocess.run(
            [*bound, *COMMAND, f"--junitxml={xml}", *checks.arguments(columns)],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    return checks.read_junit(xml, status, columns)


# -- kernels ----------------------------------------------------------------------------------


PARTS = (("plain", checks.ON_KERNELS, 1200), ("gdb", checks.ON_KERNELS_GDB, 1800))
"""Two runs of pytest on each kernel, with the seconds that each may take in a guest."""


def _chosen(names: List[str]) -> List[Tuple[str, Tuple[Check, ...], int]]:
    """PARTS with the columns of those names only."""
    parts = [(p, tuple(c for c in cs if c.name in names), s) for p, cs, s in PARTS]
    return [part for part in parts if part[1]]


def _script(parts: List[Tuple[str, Tuple[Check, ...], int]], out: str, travelled: str) -> str:
    """What a guest runs: the doctor, cores for other kernels, then the tests."""
    lines = [
        "export GDB_UFFD_TEST_GDBS=$(command -v gdb) GDB_UFFD_TEST_SLOWNESS=" + SLOWNESS,
        f"export GDB_UFFD_TEST_TRAVELLED={travelled}",
        "ulimit -c unlimited",
        f"mkdir -p {out}/cores",
        f".venv/bin/gdb-uffd doctor --json >{out}/doctor.json 2>{out}/doctor.log",
        f"PYTHONPATH=tests/lib {PYTHON} -m harness.travel {out}/cores >{out}/travel.log 2>&1",
    ]
    for name, columns, seconds in parts:
        command = shlex.join([*COMMAND, "-o", "timeout=40", f"--junitxml={out}/{name}.xml"])
        lines.append(
            f"timeout --signal=INT --kill-after=60 {seconds} {command} "
            f"{shlex.join(checks.arguments(columns))} >{out}/{name}.log 2>&1; "
            f"echo $? >{out}/{name}.status"
        )
    return "\n".join(lines) + "\n"


def _read_status(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 125


def _doctor(out: Path) -> Result:
    """What `gdb-uffd doctor` said: every lack that it names counts as one."""
    try:
        found = json.loads((out / "doctor.json").read_text())["checks"]
    except (OSError, ValueError, KeyError, TypeError):
        return Result(FAIL, note="the doctor did not answer")
    failed = [c["name"] for c in found if not c["ok"] and c["required"]]
    lacking = {f"{c['name']}: {c['found']}": 1 for c in found if not c["ok"] and not c["required"]}
    passed = sum(c["ok"] for c in found)
    return Result(FAIL if failed else PASS, passed, failed, lacking)


def run_kernel(matrix: Matrix, wanted: str, travelled: Path, names: List[str]) -> None:
    """One row: boot it, run the columns of those names, open its cores here.  Others stay."""
    out = matrix.cache / "runs" / f"kernel-{wanted}"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    out.mkdir(parents=True)
    try:
        kernel = kernels.get(packages.suites(matrix.cache), matrix.cache, wanted)
        emulator = guest.emulator(packages.own(matrix.cache), matrix.cache)
    except Lacking as why:
        cell = Result(LACKS, note=str(why))
        matrix.put(wanted, table.Row("kernel", wanted, {"doctor": cell}))
        return
    print(f"kernel {kernel.label} ({kernel.version}), emulated", flush=True)
    parts = _chosen(names)
    (out / "script").write_text(_script(parts, "/out", str(travelled)))
    began = time.monotonic()
    with open(out / "guest.log", "w") as log:
        settings = guest.Settings(out=out, seconds=600 + sum(seconds for *_, seconds in parts))
        guest.run(emulator, kernel, "bash /out/script", matrix.cache, settings, log)
    print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    cells = {"doctor": _doctor(out)}
    for name, columns, _ in parts:
        status = _read_status(out / f"{name}.status")
        cells.update(checks.read_junit(out / f"{name}.xml", status, columns))
    cells["its cores here"] = _open_here(out)
    matrix.put(
        wanted,
        table.Row("kernel", f"{kernel.label}, emulated", _merged(matrix, "kernel", wanted, cells)),
    )


def _merged(matrix: Matrix, kind: str, name: str, cells: Dict[str, Result]) -> Dict[str, Result]:
    """In the table's order, with those of earlier runs of the same row that were not run now."""
    kept = matrix.rows.get(name, table.Row(kind, "")).cells
    every = {**kept, **cells}
    return {column: every[column] for column in COLUMNS[kind] if column in every}


def _open_here(out: Path) -> Result:
    """Cores that the guest made, on this machine's kernel."""
    if not (out / "cores" / "made.json").exists():
        return Result(FAIL, note="it made no cores")
    env = {"GDB_UFFD_TEST_TRAVELLED": str(out / "cores"), **_system_gdb()}
    (check,) = (c for c in checks.ON_KERNELS_GDB if c.name == "travelled")
    return _pytest((check,), out, "here", env, 600)[check.name]


def _system_gdb() -> Dict[str, str]:
    """The one that all rows of kernels use: the others have rows of their own."""
    return {"GDB_UFFD_TEST_GDBS": shutil.which("gdb") or str(ROOT / ".venv-gdb" / "bin" / "gdb")}


def run_here(matrix: Matrix, travelled: Path, names: List[str]) -> None:
    """The row of this machine's own kernel."""
    out = matrix.cache / "runs" / "kernel-here"
    out.mkdir(parents=True, exist_ok=True)
    print(f"kernel {os.uname().release}, {HERE}", flush=True)
    with open(out / "doctor.json", "w") as file:
        command = [str(ROOT / ".venv" / "bin" / "gdb-uffd"), "doctor", "--json"]
        subprocess.run(command, stdout=file, check=False)
    cells = {"doctor": _doctor(out)}
    env = {"GDB_UFFD_TEST_TRAVELLED": str(travelled), **_system_gdb()}
    for name, columns, seconds in _chosen(names):
        cells.update(_pytest(columns, out, name, env, seconds))
    label = f"{kernels.version_of(os.uname().release)}, {HERE}"
    matrix.put(HERE, table.Row("kernel", label, _merged(matrix, "kernel", HERE, cells)))


def _cores_to_travel(matrix: Matrix) -> Path:
    """Cores of this machine's kernel and CPU."""
    folder = matrix.cache / "runs" / "cores"
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "lib")}
    command = [PYTHON, "-m", "harness.travel", str(folder)]
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return folder


def _foreign_cores(matrix: Matrix) -> Path:
    """For this machine: cores of a kernel that was emulated, else its own."""
    for wanted in (*kernels.SERIES, kernels.NEWEST):
        folder = matrix.cache / "runs" / f"kernel-{wanted}" / "cores"
        if (folder / "made.json").exists():
            return folder
    return matrix.cache / "runs" / "cores"


# -- another processor ------------------------------------------------------------------------


AARCH64_SECONDS = 3000


def run_foreign(matrix: Matrix, wanted: str, names: List[str]) -> None:
    """One row: a machine with an AArch64 processor and that kernel; the columns of those names, or
    all when none of its own is among them."""
    machine, name = foreign.AARCH64, f"{foreign.AARCH64.name} {wanted}"
    out = matrix.cache / "runs" / name.replace(" ", "-")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    out.mkdir(parents=True)
    try:
        apt = packages.suites(matrix.cache, machine.debian)
        kernel = kernels.get(apt, matrix.cache, wanted, machine.debian)
        emulator = guest.emulator(packages.own(matrix.cache), matrix.cache, machine)
        module = foreign.native_module(matrix.cache, machine)
    except Lacking as why:
        matrix.put(name, table.Row("aarch64", wanted, {"doctor": Result(LACKS, note=str(why))}))
        return
    print(f"{machine.name}, kernel {kernel.label} ({kernel.version}), emulated", flush=True)
    shutil.copy(module, out)
    columns = tuple(c for c in checks.ON_AARCH64 if c.name in names) or checks.ON_AARCH64
    parts = [("tests", columns, AARCH64_SECONDS)]
    script = foreign.prepare(f"/out/{module.name}", str(ROOT)) + _script(parts, "/out", "")
    (out / "script").write_text(script)
    began = time.monotonic()
    with open(out / "guest.log", "w") as log:
        root = foreign.root(matrix.cache, machine)
        settings = guest.Settings(out=out, seconds=AARCH64_SECONDS + 600, root=root, tree=ROOT)
        guest.run(emulator, kernel, "bash /out/script", matrix.cache, settings, log)
    print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    status = _read_status(out / "tests.status")
    cells = {"doctor": _doctor(out)}
    cells.update(checks.read_junit(out / "tests.xml", status, columns))
    every = {**matrix.rows.get(name, table.Row("aarch64", "")).cells, **cells}
    order = ("doctor", *(c.name for c in checks.ON_AARCH64))
    cells = {column: every[column] for column in order if column in every}
    matrix.put(name, table.Row("aarch64", f"{kernel.label}, emulated", cells))


# -- debuggers --------------------------------------------------------------------------------


def run_debuggers(
    matrix: Matrix,
    kind: str,
    found: List[debuggers.Debugger],
    columns: Tuple[Check, ...],
    variable: str,
) -> None:
    """A row for each gdb or lldb."""
    for each in found:
        details = {"from": each.origin, **({"Python": each.python} if each.python else {})}
        if each.path is None:
            cells = {columns[0].name: Result(LACKS, note=each.lacking)}
        else:
            print(f"{each.label}, {each.origin}", flush=True)
            out = matrix.cache / "runs" / each.label.replace(" ", "-")
            out.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            fresh = _pytest(columns, out, "tests", {variable: str(each.path)}, 3600)
            print(f"  took {time.monotonic() - began:.0f} s", flush=True)
            cells = _merged(matrix, kind, each.label, fresh)
        matrix.put(each.label, table.Row(kind, each.label, cells, details))


def run_bench(matrix: Matrix) -> None:
    """What a page costs under each engine, in the guest where all four exist."""
    print("benchmarks/engines.py", flush=True)
    command = [PYTHON, "benchmarks/engines.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    cells = {}
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
        cells["engines"] = Result(FAIL, note=said[0])
    matrix.put("bench", table.Row("bench", "engines", cells, {"text": done.stdout}))


def _selected(text: Optional[str], every: Tuple[str, ...]) -> List[str]:
    return [n for n in (text.split(",") if text else every) if n]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--kernels", metavar="LIST", help="of 5.10, 6.1, 6.12, newest, here")
    parser.add_argument(
        "--columns", metavar="LIST", help='of all of them: native,engines,...; ", " as +'
    )
    parser.add_argument("--aarch64", metavar="LIST", help="kernels of such machines: 6.1, newest")
    parser.add_argument("--gdbs", metavar="LIST", help="beginnings of versions: 12,13.1")
    parser.add_argument("--lldbs", action="store_true")
    parser.add_argument("--bench", action="store_true", help="the engines' costs, in a guest")
    parser.add_argument("--table", action="store_true", help="only write the table anew")
    given = parser.parse_args()
    some = any(value for value in vars(given).values())
    matrix = Matrix()
    os.chdir(ROOT)
    every = (*kernels.SERIES, kernels.NEWEST, "here")
    if given.kernels or not some:
        cores = _cores_to_travel(matrix)
        wanted = _selected(given.kernels, every)
        names = [n.replace("+", ", ") for n in _selected(given.columns, KERNEL_COLUMNS)]
        built = [*COMMAND, "tests/native", "-k", "plain"]  # in the cache, for the guests
        subprocess.run(built, cwd=ROOT, check=False)
        for name in wanted:
            if name != "here":
                run_kernel(matrix, name, cores, names)
        if "here" in wanted:
            run_here(matrix, _foreign_cores(matrix), names)
    if given.aarch64 or not some:
        for name in _selected(given.aarch64, foreign.KERNELS):
            names = [n.replace("+", ", ") for n in _selected(given.columns, ())]
            run_foreign(matrix, name, names)
    if given.gdbs or not some:
        found = debuggers.gdbs(matrix.cache, ROOT)
        prefixes = tuple(f"gdb {v}" for v in _selected(given.gdbs, ("",)))
        if not some:
            matrix.forget("gdb", [d.label for d in found])
        chosen = [d for d in found if d.label.startswith(prefixes)]
        names = [n.replace("+", ", ") for n in _selected(given.columns, COLUMNS["gdb"])]
        columns = tuple(c for c in checks.ON_GDBS if c.name in names)
        run_debuggers(matrix, "gdb", chosen, columns, "GDB_UFFD_TEST_GDBS")
    if given.lldbs or not some:
        found = debuggers.lldbs(packages.own(matrix.cache), matrix.cache)
        run_debuggers(matrix, "lldb", found, checks.ON_LLDBS, "GDB_UFFD_TEST_LLDBS")
    if given.bench or not some:
        run_bench(matrix)
    target = ROOT / "docs" / "compatibility.md"
    target.write_text(table.render(list(matrix.rows.values())))
    print(f"written: {target.relative_to(ROOT)}")
    failed = any(c.verdict == FAIL for r in matrix.rows.values() for c in r.cells.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
