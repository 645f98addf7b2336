"""Directories in TMPDIR: gone with their process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

from gdb_uffd import outputs
from gdb_uffd.outputs import remove_directories
from gdb_uffd.trace.scratch import Scratch


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
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
        alive.communicate("\n")
    assert names(place) == ["gdb-uffd-abcd", "gdb-uffd-link+x"]


def test_it_is_locked_before_it_has_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody takes one that is being made for one that was left behind."""
    seen = []
    rename = os.rename

    def noting(old: str, new: str) -> None:
        remove_directories(str(place))
        rename(old, new)
        remove_directories(str(place))
        seen.append(new)

    monkeypatch.setattr(os, "rename", noting)
    made = Scratch("root")
    assert seen == [made.path] and os.path.isdir(made.path)
    made.close()
    assert names(place) == []


@pytest.mark.parametrize("behind", [False, True])
def test_a_signal_while_it_gets_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    """It had its name, and was looked for under the one before."""
    rename = os.rename

    def interrupted(old: str, new: str) -> None:
        if behind:
            rename(old, new)
        raise SystemExit(143)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(SystemExit):
        Scratch("root")
    assert names(place) == []


def test_one_that_was_never_used_goes_when_it_is_old(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "gdb-uffd-root~new").mkdir()
    remove_directories(str(place))
    assert names(place) == ["gdb-uffd-root~new"]
    monkeypatch.setattr(outputs, "_FRESH_S", -1)
    remove_directories(str(place))
    assert names(place) == []


def test_beside_what_is_made(place: Path) -> None:
    """What a killed process had unpacked there goes when it is done again."""
    target = place / "t.uffd"
    left = place / ".t.uffd.unpack+dead"
    left.mkdir()
    (left / "pages").touch()
    (place / ".other.unpack+dead").mkdir()
    made = Scratch("unpack", beside=str(target))
    assert not left.exists() and os.path.dirname(made.path) == str(place)
    made.become(str(target))
    made.close()
    assert names(place) == [".other.unpack+dead", "t.uffd"]


def test_ctrl_c_while_it_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Scratch("root")
    for number in range(3):
        Path(made.path, f"file{number}").touch()
    unlink, came = os.unlink, []

    def interrupted(*arguments: Any, **more: Any) -> None:
        if not came:
            came.append(True)
            raise KeyboardInterrupt
        unlink(*arguments, **more)

    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.close()
    assert names(place) == []
