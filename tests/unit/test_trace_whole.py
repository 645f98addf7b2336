"""A file is whole or not there, whatever ends its writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from trace_stores import record

import gdb_uffd.trace
from gdb_uffd.trace import packed, store_pack
from gdb_uffd.trace.whole import Whole


@pytest.fixture(params=["O_TMPFILE", "none"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems that have nameless files, and those that have none."""
    if request.param == "none":
        real = os.open

        def without(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", without)
    return str(request.param)


def test_it_appears_when_it_is_complete(tmp_path: Path, either: str) -> None:
    path = tmp_path / "file"
    with closing(Whole(str(path))) as whole:
        os.write(whole.fd, b"content")
        assert not path.exists()
        assert len(os.listdir(tmp_path)) == (0 if either == "O_TMPFILE" else 1)
        whole.appear()
    assert path.read_bytes() == b"content" and os.listdir(tmp_path) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_replaces_nothing(tmp_path: Path, either: str) -> None:
    path = tmp_path / "file"
    with closing(Whole(str(path))) as whole:
        path.write_bytes(b"another's")
        with pytest.raises(FileExistsError):
            whole.appear()
    assert path.read_bytes() == b"another's" and os.listdir(tmp_path) == ["file"]


def test_nothing_is_left_without_it(tmp_path: Path, either: str) -> None:
    with closing(Whole(str(tmp_path / "file"))) as whole:
        os.write(whole.fd, b"content")
    assert os.listdir(tmp_path) == []


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
from gdb_uffd.trace import compressed
compressed.Sink.finish = lambda self: os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_ended_half_way_cleans_up(tmp_path: Path, number: str) -> None:
    packed_trace = tmp_path / "t.zst"
    store_pack.pack(gdb_uffd.trace.open(record(tmp_path, 2, 8).path), str(packed_trace))
    before = sorted(os.listdir(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, number, "unpack", str(packed_trace), "-o",
         str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 128 + getattr(signal, number), done.stderr
    assert "Traceback" not in done.stderr and sorted(os.listdir(tmp_path)) == before
