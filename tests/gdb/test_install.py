"""What a user installs: `pip install .`, the line for ~/.gdbinit, the shell command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, gdbs, survivors


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """A fresh environment, its path with a space, with gdb_uffd installed from a copy."""
    folder = tmp_path_factory.mktemp("a user")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", str(source)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)  # what is installed must not need it
    return venv / "bin"


def command(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(installed)}
    return subprocess.run(
        [str(installed / "gdb-uffd"), *arguments],
        capture_output=True,
        text=True,
        env=env,
        cwd="/",
        check=False,
    )


@pytest.mark.every_gdb
@pytest.mark.slow
def test_gdb_with_the_printed_line(installed, gdb_path, tmp_path, all_cores):
    line = command(installed, "gdbinit").stdout
    assert line.count("\n") == 1 and line.startswith("source "), line
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gdbinit").write_text(line)
    gdb = gdbs.Gdb(gdb_path, home, init=f"{home / '.gdbinit'}")
    try:
        shown = gdb.run(f"uffd spawn {all_cores.sample()}")
        assert "lookup (value=99)" in shown, shown
        assert gdb.call("push(7)")["value"] == "1042"
        (server,) = survivors.servers()
        with open(f"/proc/{server}/cmdline", "rb") as f:
            assert str(installed).encode() in f.read()
    finally:
        gdb.quit()


@pytest.mark.slow
def test_shell_command(installed):
    assert command(installed, "--version").stdout.strip()
    done = command(installed, "doctor")
    assert "userfaultfd" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout
    assert json.loads(command(installed, "doctor", "--json").stdout)
    assert command(installed, "frobnicate").returncode == 2


@pytest.mark.every_gdb
def test_init_file_of_the_checkout(gdb_path, tmp_path):
    done = subprocess.run(
        [gdb_path, "-nx", "-batch", "-x", "gdbinit.example", "-ex", "help uffd call"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=gdbs.environment(tmp_path / "home"),
        check=False,
    )
    assert done.returncode == 0 and "uffd call" in done.stdout, done.stderr


@pytest.mark.slow
def test_recording_from_a_path_with_spaces(installed, gdb_path, tmp_path, built):
    env = {**gdbs.environment(tmp_path / "home"), "GDB_UFFD_GDB": gdb_path}
    trace = tmp_path / "a trace"
    done = subprocess.run(
        [installed / "gdb-uffd", "record", "-o", trace, "--at", "push", "--", built / "sample"],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    assert "8 snapshots in" in done.stderr and trace.with_suffix(".uffd").is_dir(), done.stderr


@pytest.mark.every_gdb
@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_demo(gdb_path, tmp_path, locale):
    """The demo's session; with each gdb, and failing when a step does."""
    env = {**gdbs.environment(tmp_path / "home"), "GDB": gdb_path, "LC_ALL": locale}
    done = subprocess.run(
        [str(ROOT / "tools" / "demo")],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "gdb> uffd call push(7)" in done.stdout


@pytest.mark.slow
def test_demo_fails_when_a_step_does(gdb_path, tmp_path):
    env = {**gdbs.environment(tmp_path / "home"), "GDB": gdb_path}
    env["GDB_UFFD_PYTHON"] = "/nowhere/python"
    done = subprocess.run(
        [str(ROOT / "tools" / "demo")],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode != 0
