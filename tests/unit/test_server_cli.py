"""The shell command."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import List

import pytest

import gdb_uffd
from gdb_uffd import cli
from gdb_uffd.replay.interface import Check


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"gdb-uffd {gdb_uffd.__version__}\n"


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_gdbinit_is_one_line_that_names_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gdbinit"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    command, _, path = line.partition(" ")
    assert command == "source" and Path(path).is_absolute() and Path(path).is_file()


def examined(monkeypatch: pytest.MonkeyPatch, checks: List[Check]) -> None:
    module = types.ModuleType("gdb_uffd.replay.doctor")
    module.examine = lambda _engine: checks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdb_uffd.replay.doctor", module)


GOOD = Check("kernel", True, "6.18")
LACKING = Check("userfaultfd", False, "forbidden", "sysctl vm.unprivileged_userfaultfd=1")
OPTIONAL = Check("avx512", False, "no", "another machine", required=False)


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    examined(monkeypatch, [GOOD, OPTIONAL])
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok    kernel: 6.18",
        "warn  avx512: no  -> another machine",
    ]
    examined(monkeypatch, [GOOD, LACKING])
    assert cli.main(["doctor"]) == 1
    assert "FAIL  userfaultfd: forbidden  -> sysctl vm" in capsys.readouterr().out
    assert cli.main(["doctor", "-json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [c["ok"] for c in checks] == [True, False]
    assert checks[1]["remedy"].startswith("sysctl")


def test_doctor_without_the_native_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gdb_uffd.replay.doctor", None)
    assert cli.main(["doctor"]) == 1
    assert "run make" in capsys.readouterr().out


def test_serve_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(tmp_path / "none")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("gdb-uffd: ") and str(tmp_path / "none") in line
