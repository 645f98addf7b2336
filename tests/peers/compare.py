"""Other projects' test cores, opened here and by stock gdb: is the same shown?

`make peers` fetches them (tools/peer-cores), compares registers, backtraces, memory, mappings and
the auxiliary vector, and prints one line a core.  A core of an architecture that we do not know
must be refused with one line that names it; nothing may end in a traceback.  The stock gdb is told
the same executable.  known.txt has the differences that are meant.
"""

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
CACHE = CHECKOUT / ".cache" / "peers"
GDB = CHECKOUT / ".venv-gdb" / "bin" / "gdb"
SAMPLES = 3  # in each PT_LOAD: at its start, in its middle, at its end
SAMPLE = 64
PT_LOAD, ET_CORE = 1, 4
KNOWN = {("ELF64", 62), ("ELF64", 183)}  # x86-64, AArch64 (System V ABI, e_machine)


@dataclass
class Outcome:
    core: str
    verdict: str
    notes: list[str] = field(default_factory=list)


def header(core: Path) -> "tuple[str, int, list[tuple[int, int]]]":
    """Class, e_machine and (address, bytes held) of each PT_LOAD; ValueError of no core."""
    data = core.read_bytes()
    if data[:4] != b"\x7fELF":
        raise ValueError("no ELF file")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if kind != ET_CORE:
        raise ValueError("no core")
    phoff = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    loads = []
    for number in range(count):
        at = phoff + number * size
        if wide:
            tag, _, _, address, _, held, _ = struct.unpack_from(order + "IIQQQQQ", data, at)
        else:
            tag, _, address, _, held = struct.unpack_from(order + "IIIII", data, at)
        if tag == PT_LOAD:
            loads.append((address, held))
    return ("ELF64" if wide else "ELF32"), machine, loads


def samples(loads: "list[tuple[int, int]]") -> "list[list[int]]":
    found = []
    for address, held in loads:
        length = min(SAMPLE, held)
        for number in range(SAMPLES if length else 0):
            found.append([address + (held - length) * number // (SAMPLES - 1), length])
    return found


def find_executable(core: Path) -> "Path | None":
    """The program that the peer keeps beside its core."""
    name = core.name
    beside = (
        (".core", ".exec"),
        (".core", ".out"),
        ("core-", "exec-"),
        ("-core", "-exec"),
        ("_core", "_exec"),
    )
    for old, new in beside:
        other = core.with_name(name.replace(old, new))
        if old in name and other != core and other.exists():
            return other
    return None


def ask(opening: "list[str]", ranges: "list[list[int]]") -> "tuple[dict[str, object] | None, str]":
    """What gdb shows after the commands `opening` (None: it did not), and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "facts"
        own = {
            "PEER_OUT": str(out),
            "PEER_RANGES": json.dumps(ranges),
            "HOME": folder,
            "LC_ALL": "C.UTF-8",
        }
        command = [
            str(GDB),
            "-nx",
            "-q",
            "-batch",
            "-iex",
            "set debuginfod enabled off",
            "-iex",
            "set width 0",
        ]
        for line in [*opening, f"source {HERE / 'dump.py'}"]:
            command += ["-ex", line]
        done = subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        facts = json.loads(out.read_text()) if out.exists() else None
        return facts, done.stdout + done.stderr


def compare_core(core: Path, known: "list[re.Pattern[str]]") -> Outcome:
    name = str(core.relative_to(CACHE))
    kind, machine, loads = header(core)
    executable = find_executable(core)
    program = [f"file {executable}"] if executable else []
    ranges = samples(loads)
    ours, printed = ask(
        [
            f"source {CHECKOUT / 'gdb_uffd' / 'gdbinit.py'}",
            f'uffd spawn "{core}" ' + (f'"{executable}"' if executable else ""),
        ],
        ranges,
    )
    if "Traceback" in printed or "internal-error" in printed or "Internal error" in printed:
        return Outcome(name, "crash", printed.strip().split("\n"))
    opened = ours is not None and ours["thread"] is not None
    if (kind, machine) not in KNOWN and not opened:
        refusal = [line for line in printed.split("\n") if str(core) in line]
        return Outcome(name, "refused" if len(refusal) == 1 else "not opened", refusal)
    if not opened:
        return Outcome(name, "not opened", printed.strip().split("\n"))
    theirs, _ = ask([*program, f"core-file {core}"], ranges)
    assert ours is not None
    if theirs is None or theirs["thread"] is None:
        return Outcome(name, "only here", [])
    notes = [
        note
        for note in differences(theirs, ours)
        if not any(one.search(f"{name}: {note}") for one in known)
    ]
    return Outcome(name, "differs" if notes else "same", notes)


def read_known() -> "list[re.Pattern[str]]":
    """The differences that are meant: the lines of known.txt, but for comments."""
    lines = (HERE / "known.txt").read_text().split("\n")
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def differences(
    theirs: "dict[str, object]", ours: "dict[str, object]", at: str = ""
) -> "list[str]":
    """One line for each value that is not the same, `stock → ours`."""
    found = []
    for key in sorted({*theirs, *ours}):
        one, other = theirs.get(key), ours.get(key)
        where = f"{at}.{key}" if at else key
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, where)
        elif isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], dict):
            if len(one) != len(other):
                found.append(f"{where}: {len(one)} → {len(other)}")
            for number, pair in enumerate(zip(one, other)):
                found += differences(*pair, f"{where}[{number}]")
        elif one != other:
            found.append(f"{where}: {shown(one)} → {shown(other)}")
    return found


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 30000 else text[:30000] + "…"


def find_cores() -> "list[Path]":
    found = []
    for path in sorted(CACHE.glob("*/**/*")):
        if (
            path.is_file()
            and "debuginfod" not in str(path)
            and path.suffix not in (".py", ".c", ".cpp", ".sh", ".test")
        ):
            try:
                header(path)
            except (ValueError, struct.error):
                continue
            found.append(path)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the cores' names (else all)")
    parser.add_argument("-v", action="store_true", help="print the differences")
    options = parser.parse_args()
    for skipped in sorted(CACHE.glob("*.skipped")):
        print(f"peers: no {skipped.stem}: {skipped.read_text().strip()}")
    bad = 0
    for core in find_cores():
        if options.names and not any(name in str(core) for name in options.names):
            continue
        outcome = compare_core(core, read_known())
        bad += outcome.verdict in ("crash", "differs", "not opened")
        print(f"{outcome.verdict:10}  {outcome.core}  {len(outcome.notes)}", flush=True)
        if options.v:
            for note in outcome.notes:
                print(f"    {note}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
