"""What a command writes is whole or not there, whatever ends it; files: test_outputs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trace_stores import record

import gdb_uffd.trace
from gdb_uffd.trace.store import pack, packed


def test_a_killed_pack_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Any:
        yield b"x" * 100_000
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            packed.write(str(tmp_path / "file"), pieces(), 1)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert os.listdir(tmp_path) == []


TERMINATED = """\
import os, signal, sys
from gdb_uffd import cli
from gdb_uffd.trace.files import compressed
compressed.SparseSink.finish = lambda self: os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_ended_half_way_cleans_up(tmp_path: Path, number: str) -> None:
    packed_trace = tmp_path / "t.zst"
    pack.pack(gdb_uffd.trace.open(record(tmp_path, 2, 8).path), str(packed_trace))
    before = sorted(os.listdir(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, number, "unpack", str(packed_trace), "-o",
         str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 128 + getattr(signal, number), done.stderr
    assert "Traceback" not in done.stderr and sorted(os.listdir(tmp_path)) == before
