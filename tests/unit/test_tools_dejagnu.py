"""The table of tests/dejagnu: what counts as a difference, and whose reason it has."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "dejagnu"
SPEC = importlib.util.spec_from_file_location("dejagnu_table", FOLDER / "table.py")
assert SPEC is not None and SPEC.loader is not None
table = importlib.util.module_from_spec(SPEC)
sys.modules["dejagnu_table"] = table
SPEC.loader.exec_module(table)

HEAD = "uffd: prog is served on /s/rsp\n"


def result(folder: Path, board: str, log: str, ended: bool = True) -> None:
    (folder / board).mkdir(exist_ok=True)
    (folder / board / "gdb.base__a.log").write_text(log)
    (folder / board / "gdb.base__a.json").write_text(json.dumps({"ended": ended, "seconds": 1}))


def known(folder: Path, text: str) -> Path:
    path = folder / "known.txt"
    path.write_text(text)
    return path


def lines(*outcomes: str) -> str:
    return "".join(
        f"{kind}: gdb.base/a.exp: {name}\n"
        for kind, _, name in (o.partition(" ") for o in outcomes)
    )


def test_a_difference_has_a_reason_or_is_a_fault(tmp_path, capsys):
    result(tmp_path, "native", lines("PASS one"))
    result(tmp_path, "gdbserver", lines("PASS one", "PASS two", "PASS three (pid 12)", "FAIL four"))
    ours = (
        HEAD
        + lines("PASS one")
        + "the program would exit with code 0\n"
        + lines("FAIL two (timeout)")
    )
    result(tmp_path, "ours", ours)
    page = tmp_path / "page.md"
    reasons = known(tmp_path, "# c\n[exit] it stops\n* | | would exit\n")
    # `three` did not run at all: it stands behind `two`.
    assert table.write(tmp_path, ["gdb.base/a.exp"], reasons, page) == 0
    assert "| gdb.base/a.exp | 1 | 3 | 1 | 2 | 0 |" in page.read_text()
    assert "| 2 | it stops |" in page.read_text()
    reasons = known(tmp_path, "[exit] it stops\ngdb.base/b.exp | |\n")
    assert table.write(tmp_path, ["gdb.base/a.exp"], reasons, page) == 1
    assert "FAIL: gdb.base/a.exp: two" in capsys.readouterr().out
    assert "| gdb.base/a.exp | two | FAIL |" in page.read_text()


def test_what_did_not_end_or_never_asked_our_server_is_not_counted(tmp_path):
    page = tmp_path / "page.md"
    reasons = known(tmp_path, "")
    result(tmp_path, "gdbserver", lines("PASS one"))
    result(tmp_path, "ours", HEAD + lines("FAIL one"), ended=False)
    assert table.write(tmp_path, ["gdb.base/a.exp"], reasons, page) == 0
    assert "gdb.base/a.exp (ours)" in page.read_text() and "| 0 | 0 | 0 | 0 |" in page.read_text()
    result(tmp_path, "ours", lines("PASS one"))
    assert table.write(tmp_path, ["gdb.base/a.exp"], reasons, page) == 0
    assert "| 0 | 0 | 0 | 0 |" in page.read_text()
