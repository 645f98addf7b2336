"""Directories in TMPDIR: gone with their process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from gdb_uffd.trace import scratch
from gdb_uffd.trace.scratch import Scratch


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_FRESH", -1)
    return tmp_path


def names(place: Path) -> List[str]:
    return sorted(p.name for p in place.iterdir())


def another(place: Path) -> "subprocess.Popen[str]":
    code = (
        "from gdb_uffd.trace.scratch import Scratch\n"
        "made = Scratch('root')\nopen(made.path + '/file', 'w').close()\n"
        "print(made.path, flush=True)\ninput()\nmade.close()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    """And nothing that a live one uses, that is another's, or that is none of ours."""
    with another(place) as dead, another(place) as alive:
        assert dead.stdout and alive.stdout
        left, used = Path(dead.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (place / "gdb-uffd-abcd").mkdir()
        (place / "gdb-uffd-link+x").symlink_to(used)
        assert (left / "file").exists()
        made = Scratch("root")
        assert not left.exists() and (used / "file").exists()
        assert names(place) == sorted(
            ["gdb-uffd-abcd", "gdb-uffd-link+x", used.name, Path(made.path).name]
        )
        made.close()
        made.close()
        alive.communicate("\n", timeout=30)
    assert names(place) == ["gdb-uffd-abcd", "gdb-uffd-link+x"]


def test_a_fresh_one_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be about to be locked."""
    monkeypatch.setattr(scratch, "_FRESH", 60)
    (place / "gdb-uffd-root+new").mkdir()
    Scratch("root").close()
    assert names(place) == ["gdb-uffd-root+new"]
