"""Random programs, alive against our core of the same instant: is the same seen?

`make differential` makes C programs with csmith (from Debian), C and C++ programs of its own
(cc.py, cxx.py), compiles each with other options, stops it at main, and makes five calls twice: in
the live process and in a core of it.  Compared after each call: the value, every global as gdb
prints it, the bytes of the program's writable memory and heap, the registers, and which globals
and what on the heap `uffd call` says were changed, with what before and after.
DIFFERENTIAL_ARGS="--count 1000 --first 0"; programs that differ are kept in
.cache/differential/differs.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cc
import cxx

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
CACHE = CHECKOUT / ".cache" / "differential"
GDB = CHECKOUT / ".venv-gdb" / "bin" / "gdb"
CSMITH = CACHE / "root" / "usr" / "bin" / "csmith"
LIMIT = 60  # seconds


def language(seed: int) -> str:
    """Which generator makes it: a third each."""
    if seed % 3 == 2:
        return "C++"
    return "C (cc.py)" if seed % 3 == 1 or not CSMITH.exists() else "C"


def make_program(seed: int, folder: Path) -> str:
    """Compile the program of `seed` as folder/p; what it is, or why it cannot be had."""
    choose = random.Random(seed)
    level = choose.choice(("-O0", "-O0", "-O1", "-Og", "-O2"))
    pie = choose.choice(("-pie", "-no-pie"))
    common = ["-g", level, "-w", "-fPIE" if pie == "-pie" else "-fno-pie", pie]
    kind = language(seed)
    if kind != "C":
        source, calls = (cxx if kind == "C++" else cc).generate(seed)
        name, compiler = ("p.cpp", ["g++"]) if kind == "C++" else ("p.c", ["gcc"])
        (folder / name).write_text(source)
        (folder / "calls.txt").write_text("\n".join(calls))
        compiler += [*common, name]
    else:
        options = ["--seed", str(seed), "--max-funcs", "6", "--max-block-depth", "3"]
        options += ["--no-pointers"] if choose.random() < 0.4 else []
        with open(folder / "p.c", "w") as out:
            subprocess.run([CSMITH, *options], stdout=out, cwd=folder, timeout=LIMIT, check=True)
        compiler = ["gcc", *common, f"-I{CACHE}/root/usr/include/csmith", "p.c"]
    subprocess.run([*compiler, "-o", "p"], cwd=folder, timeout=LIMIT, check=True)
    return f"{kind} {level} {pie}"


def session(folder: Path, mode: str) -> str:
    """Run session.py; what gdb printed."""
    own = {"DIFF_FOLDER": str(folder), "DIFF_MODE": mode, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    command = [str(GDB), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    if mode == "live":
        lines = [f"file {folder / 'p'}"]
    else:
        lines = [f"source {CHECKOUT / 'gdb_uffd' / 'gdbinit.py'}", f"uffd spawn {folder / 'core'}"]
    for line in [*lines, "set width 0", f"source {HERE / 'session.py'}"]:
        command += ["-ex", line]
    done = subprocess.run(
        command, env={**os.environ, **own}, cwd=folder, capture_output=True, text=True,
        errors="replace", stdin=subprocess.DEVNULL, timeout=LIMIT,
    )  # fmt: skip
    return done.stdout + done.stderr


def differences(folder: Path) -> "list[str]":
    live, ours = (json.loads((folder / f"{mode}.json").read_text()) for mode in ("live", "ours"))
    found = []
    if len(live) != len(ours):
        found.append(f"{len(live)} calls → {len(ours)}")
    for one, other in zip(live, ours):
        call = one["call"]
        for key in ("value", "memory", "changed", "registers"):
            if one[key] != other[key]:
                found.append(f"{call}: {key}: {shorten(one[key], other[key])}")
        if one["value"].startswith("error"):
            continue
        value = re.sub(r"^\([^()]*\*\) ", "", other["uffd_call"])  # `print` adds a pointer's type
        if value != one["value"] and len(one["value"]) < 200:
            found.append(f"{call}: uffd call: {one['value']} → {value}")
        told = {re.search(r"[A-Za-z_]\w*", name)[0] for name in other["told"]}
        if told != set(one["changed"]):
            missing, more = set(one["changed"]) - told, told - set(one["changed"])
            found.append(f"{call}: names: not told {sorted(missing)}, told {sorted(more)}")
        found += [f"{call}: heap: {wrong}" for wrong in other["heap"]]
        for name, pair in other["told"].items():
            # What a pointer points to was read at another instant.
            if pair != one["changed"].get(name, pair) and '"' not in "".join(pair):
                found.append(f"{call}: {name}: {one['changed'][name]} → {pair}")
    return found


def shorten(one: object, other: object) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        return "; ".join(f"{key} {one.get(key)} → {other.get(key)}" for key in keys)[:600]
    return f"{one} → {other}"[:600]


def judge(seed: int) -> "tuple[str, str, list[str]]":
    """(verdict, what the program is, differences)."""
    folder = CACHE / "work" / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        kind = make_program(seed, folder)
        printed = session(folder, "live")
        if not (folder / "live.json").exists():
            return "no oracle", kind, [printed.strip()[-300:]]
        printed = session(folder, "ours")
        if not (folder / "ours.json").exists():
            notes = ["no answer: " + printed.strip()[-600:]]
        else:
            notes = differences(folder)
    except subprocess.TimeoutExpired:
        ours = (folder / "live.json").exists()
        if not ours:
            return "no oracle", "too slow", []
        kind, notes = "", [f"did not end in {LIMIT} s"]
    if notes:
        kept = CACHE / "differs" / str(seed)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
    shutil.rmtree(folder, ignore_errors=True)
    return "differs" if notes else "same", kind, notes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    if not CSMITH.exists():
        skipped = CACHE / "csmith.skipped"
        why = skipped.read_text().strip() if skipped.exists() else "run make differential"
        print(f"differential: no programs in C: {why}")
    began, counts = time.monotonic(), {"same": 0, "differs": 0, "no oracle": 0}
    for seed in range(options.first, options.first + options.count):
        verdict, kind, notes = judge(seed)
        counts[verdict] += 1
        if verdict != "same":
            print(f"{seed}  {kind}  {verdict}", flush=True)
            for note in notes:
                print(f"    {note[:700]}", flush=True)
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()), end="")
    print(f", {time.monotonic() - began:.0f} s")
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
