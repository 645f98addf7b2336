"""The sessions of docs/debugging.md print what they say there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from harness import ROOT, cores

PAGE = ROOT / "docs" / "debugging.md"


@pytest.mark.slow
def test_the_sessions_run_as_written(gdb_path, built, tmp_path):
    libc = re.search(r"^glibc (\S+) malloc", PAGE.read_text(encoding="utf-8"), re.M)
    here = os.confstr("CS_GNU_LIBC_VERSION")
    if libc is None or here != f"glibc {libc[1]}":
        pytest.skip(f"the page was made with {libc and libc[0]}, here is {here}")
    try:
        cores.kernel_core([str(built / "sample")], tmp_path)
    except cores.NoKernelCore as why:
        pytest.skip(str(why))
    command = [sys.executable, str(ROOT / "tools" / "sessions"), "--check", str(PAGE)]
    done = subprocess.run(
        command, env={**os.environ, "GDB": gdb_path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_line_is_wider_than_a_terminal():
    sessions = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for text in sessions for line in text.splitlines()]
    said = [line.expandtabs() for line in lines if not line.startswith(("$ ", "(gdb) "))]
    assert len(said) > 80
    assert [line for line in said if len(line) > 80] == []
