"""Real programs, recorded while gdb runs them: each snapshot answers as the live process did there.

While a program is recorded, native gdb evaluates expressions in it; the same ones are then
evaluated at the snapshots.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Sequence

import pytest
from harness import gdbs, programs
from harness.extras import extra


@dataclasses.dataclass
class Program:
    """What to run, where to take snapshots, and what to ask at some of them."""

    command: List[str]
    where: str
    hits: int
    asked: Sequence[int]  # at which hits
    expressions: Sequence[str]
    env: Dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Recorded:
    """A finished trace, and what the live process said at each asked hit, in order."""

    trace: Path
    said: Dict[int, List[str]]
    frames: Dict[int, str]
    registers: Dict[int, str]
    threads: Dict[int, int]


SHOWN = "info registers rip rsp rbp rbx r12 eflags fs_base mxcsr"


def frames_of(text: str) -> str:
    """A backtrace without what only a live process has: blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines() if line.startswith("#"))


def threads_of(text: str) -> int:
    """How many threads `info threads` lists."""
    return len(re.findall(r"^\*? +\d+ ", text, re.M))


def record(program: Program, folder: Path) -> Recorded:
    """Run `program` under native gdb with a snapshot at each hit."""
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 (`make gdb`): gdb 13.1 has no native calls on every CPU")
    live = gdbs.Gdb(str(gdbs.PYPI_GDB), folder / "home")
    trace = folder / "trace.uffd"
    made = Recorded(trace, {}, {}, {}, {})
    try:
        live.run(f"file {program.command[0]}")
        quoted = " ".join(f"'{a}'" for a in program.command[1:])
        for name, value in program.env.items():
            live.run(f"set environment {name} {value}")
        live.run(f"break {program.where}")
        live.run(f"run {quoted}", 60)
        live.run(f"uffd record start {trace}", 60)
        for hit in range(program.hits):
            text = live.run(f"uffd record snapshot hit{hit}", 60)
            assert f"snapshot {hit}" in text, live.transcript
            if hit in program.asked:
                made.frames[hit] = frames_of(live.run("bt"))
                made.registers[hit] = live.run(SHOWN)
                made.threads[hit] = threads_of(live.run("info threads"))
                made.said[hit] = [live.value(e) for e in program.expressions]
            if hit + 1 < program.hits:
                assert "Breakpoint" in live.run("continue", 60), live.transcript
        assert "Traceback" not in live.run("uffd record stop", 60)
        live.run("kill")
        live.quit()
    finally:
        live.child.close(force=True)
    return made


def check(gdb, program: Program, made: Recorded) -> None:
    """Every asked hit answers as the live process did; twice, since calls are forgotten."""
    assert "Traceback" not in gdb.run(f"uffd spawn {made.trace}", 60)
    late_first = sorted(program.asked, reverse=True)
    for hit in [*late_first, *program.asked]:
        gdb.run(f"uffd goto hit{hit}")
        assert gdb.value("$_uffd_snapshot") == str(hit)
        assert gdb.value("$_uffd_label") == f'"hit{hit}"'
        assert frames_of(gdb.run("bt")) == made.frames[hit]
        assert gdb.run(SHOWN) == made.registers[hit]
        assert threads_of(gdb.run("info threads")) == made.threads[hit]
        # Kept, as on the live process, where one call saw what those before it did.
        for expression, said in zip(program.expressions, made.said[hit]):
            assert gdb.value(expression) == said, (hit, expression)
        gdb.run("uffd reset")
        first = program.expressions[0]
        assert gdb.call(first)["value"] == made.said[hit][0], (hit, first)


@pytest.fixture(scope="session")
def rounds(built, tmp_path_factory):
    program = Program(
        [str(built / "rounds"), "12"], "tick", 12, (0, 4, 7, 8, 11),
        ["total()", "scaled(2.0)", "mapped_sum()", "add(7)", "total()", "newest()", "counter",
         "shares", "mine", "*head"],
    )  # fmt: skip
    return program, record(program, tmp_path_factory.mktemp("rounds"))


@pytest.fixture(scope="session")
def ledger(built, tmp_path_factory):
    program = Program(
        [programs.find(built, "ledger"), "10"], "settled", 10, (0, 5, 9),
        ["history_sum()", 'balance("account 01")', 'deposit("account 01", 5)', "risky(1)",
         "risky(100000)", 'deposit("new", 1)', "joined().size()", "visits"],
    )  # fmt: skip
    return program, record(program, tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="session")
def lua(tmp_path_factory):
    home = extra("lua")
    script = tmp_path_factory.mktemp("lua-script") / "script.lua"
    script.write_text(
        "t = {}; names = {}\nfor i = 1, 20 do\n"
        "  t[i] = i * i; names['n' .. i] = string.rep('x', i)\n"
        "  if i % 5 == 0 then collectgarbage() end\n  os.clock()\nend\n"
    )
    steps = 'luaL_loadstring(globalL, "{}"), lua_pcallk(globalL, 0, 1, 0, 0, 0)'
    asked = [
        f"({steps.format('return #t * 1000 + t[#t]')}, lua_tointegerx(globalL, -1, 0))",
        f"({steps.format('t[#t + 1] = 7; return #t')}, lua_tointegerx(globalL, -1, 0))",
        f"({steps.format('return names.n1 .. #t')}, lua_tolstring(globalL, -1, 0))",
        "lua_gettop(globalL)",
    ]
    program = Program([str(home / "lua"), str(script)], "os_clock", 20, (0, 9, 19), asked)
    return program, record(program, tmp_path_factory.mktemp("lua"))


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    home = extra("python-dbg") / "usr"
    (binary,) = (home / "bin").glob("python3.*-dbg")
    script = tmp_path_factory.mktemp("python-script") / "script.py"
    script.write_text(
        "import time\ndata = []\nfor i in range(12):\n"
        "    data.append({'n': i, 'text': 'x' * i})\n    time.process_time()\n"
    )
    main = 'PyModule_GetDict(PyImport_AddModule("__main__"))'
    asked = [
        f'PyLong_AsLong(PyRun_StringFlags("{code}", 258, {main}, {main}, 0))'
        for code in (
            "len(data) * 100 + sum(d['n'] for d in data)",
            "data.append(dict(n=1000)) or len(data)",
            "sum(d['n'] for d in data) + hash('x') % 7",
        )
    ] + ["PyGC_Collect() >= 0"]
    env = {"PYTHONHOME": str(home), "PYTHONHASHSEED": "0"}
    program = Program(
        [str(binary), "-S", str(script)], "time_process_time", 12, (0, 6, 11), asked, env
    )
    return program, record(program, tmp_path_factory.mktemp("python"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rounds", "ledger", "lua", "python"])
def test_each_snapshot_answers_as_the_live_process_did(gdb, request, name):
    program, made = request.getfixturevalue(name)
    check(gdb, program, made)


def test_recorded_snapshots_are_told(gdb, rounds):
    program, made = rounds
    gdb.run(f"uffd spawn {made.trace}", 60)
    listed = gdb.json("uffd snapshots -json")["snapshots"]
    assert [s["label"] for s in listed] == [f"hit{n}" for n in range(program.hits)]
    assert all(s["function"] == "tick" and s["threads"] == 4 for s in listed)
    assert [s["number"] for s in listed] == list(range(program.hits))
    assert all(a["time_ns"] < b["time_ns"] for a, b in zip(listed, listed[1:]))
    assert all(0 < s["pages_changed"] < 200 for s in listed[1:])


def test_packed_trace_answers_alike(gdb, rounds, tmp_path):
    program, made = rounds
    packed = tmp_path / "rounds.uffdz"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "gdb-uffd"), "pack", str(made.trace), "-o", str(packed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(gdb, program, dataclasses.replace(made, trace=packed))
