"""`tools/test`: several runs take the modules, each one once; a test that none ran is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest
from harness import ROOT
from harness.queue import Queue


def item(nodeid: str, slow: bool = False) -> Any:
    marks = {"slow": object()} if slow else {}
    path = Path("/checkout") / nodeid.partition("::")[0]
    return SimpleNamespace(nodeid=nodeid, path=path, get_closest_marker=marks.get)


ITEMS = [
    *(item(f"tests/unit/test_a.py::test_{n}") for n in range(5)),
    *(item(f"tests/gdb/test_b.py::test_it[{n}]") for n in range(3)),
    item("tests/unit/test_c.py::test_it", slow=True),
]


def test_each_module_is_taken_once_and_the_longest_first(tmp_path: Path) -> None:
    one, other = (Queue(tmp_path, ITEMS) for _ in range(2))
    first, second = one.items(), other.items()
    got = [next(first).nodeid, next(second).nodeid, *(each.nodeid for each in second)]
    assert got[:4] == [ITEMS[8].nodeid, *(each.nodeid for each in ITEMS[5:8])]
    assert got[4:] == [each.nodeid for each in ITEMS[:5]] and list(first) == []


STANDS_FOR_PYTHON = """#!{python}
import os, signal, sys
if sys.argv[1] == "-c":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
# In one word: a folder in one of its own pytest takes for that of the tests at first.
(queue,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--queue="))
with open(queue + f"/collected.{{os.getpid()}}", "w") as file:
    file.write("a::1\\na::2\\nb::1\\n")
role = "first"
if "-q" in sys.argv:
    try:
        os.open(queue + "/second", os.O_CREAT | os.O_EXCL)
        role = "second"
    except FileExistsError:
        role = "third"
with open(queue + f"/ran.{{os.getpid()}}", "w") as file:
    for name in {{"first": {first!r}, "second": {second!r}}}.get(role, []):
        file.write(name + "\\n")
print("some output", flush=True)
if role == "second" and {dies!r}:
    os.kill(os.getpid(), signal.SIGKILL)
said = {{"first": "2 passed, 4 deselected", "second": "1 failed"}}
print(said.get(role, "no tests ran") + " in 1.00s")
sys.exit({status} if role == "second" else 0)
"""


@pytest.mark.parametrize(
    "first, second, status, dies, wanted, told",
    [
        (["a::1", "a::2"], ["b::1"], 0, False, 0, []),
        (["a::1", "a::2"], ["b::1"], 1, False, 1, []),
        (["a::1", "a::2"], [], 0, False, 1, ["< b::1"]),
        (["a::1", "a::2"], ["a::2", "b::1"], 0, False, 1, ["> a::2"]),
        (["a::1", "a::2"], [], 0, True, 137, ["< b::1"]),
    ],
)
def test_what_was_not_run_fails(
    tmp_path: Path,
    first: List[str],
    second: List[str],
    status: int,
    dies: bool,
    wanted: int,
    told: List[str],
) -> None:
    python = tmp_path / "python"
    python.write_text(
        STANDS_FOR_PYTHON.format(
            python=sys.executable, first=first, second=second, status=status, dies=dies
        )
    )
    (tmp_path / "nproc").write_text("#!/bin/sh\necho 2\n")
    for program in ("python", "nproc"):
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "tools" / "test"), str(python)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == wanted, done.stdout + done.stderr
    assert [line for line in lines if line.startswith(("< ", "> "))] == told
    counts = "2 passed" if dies else "2 passed, 1 failed"
    assert lines[-1] == f"== all parts: {counts}" and lines.count("some output") == 3
