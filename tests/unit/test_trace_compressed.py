"""Compressed cores: opened as they are, damaged ones refused in one line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Dict

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_cores import PAGE, Load, auxv, core, prpsinfo, prstatus

import gdb_uffd.trace
from gdb_uffd.model import UffdError
from gdb_uffd.trace import compressed
from gdb_uffd.trace.compressed import compression, unpacked

ENDINGS = {"zstd": "zst", "gzip": "gz", "xz": "xz", "lz4": "lz4"}
PACK: Dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lz4": lambda raw: lz4.frame.compress(raw, content_checksum=True),
}
KINDS = sorted(PACK)
CONTENT = os.urandom(200_000) + bytes(1_000_000) + b"end" * 9999


def content(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("kind", KINDS)
def test_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    packed = PACK[kind](CONTENT)
    path.write_bytes(packed)
    assert compression(packed) == kind
    fd = unpacked(str(path), kind)
    assert os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_mode & 0o777 == 0o600
    assert os.fstat(fd).st_blocks * 512 < 500_000  # zeros are a hole
    assert content(fd) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", b"\0" * 4096, None])
def test_several_frames(tmp_path: Path, kind: str, behind: "bytes | None") -> None:
    path = tmp_path / "x"
    end = behind if behind is not None else PACK[kind](b"more")
    path.write_bytes(PACK[kind](CONTENT) + PACK[kind](b"again") + end)
    more = b"more" if behind is None else b""
    assert content(unpacked(str(path), kind)) == CONTENT + b"again" + more


@pytest.mark.parametrize("kind", KINDS)
def test_the_tools_of_the_field(tmp_path: Path, kind: str) -> None:
    tool = shutil.which(kind)
    if tool is None:
        pytest.skip(f"no {kind}")
    (tmp_path / "x").write_bytes(CONTENT)
    done = subprocess.run([tool, "-c", str(tmp_path / "x")], capture_output=True, check=True)
    (tmp_path / "y").write_bytes(done.stdout)
    assert content(unpacked(str(tmp_path / "y"), kind)) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Right or refused, never a crash; a checksum of the content finds every flipped byte."""
    raw = bytearray(PACK[kind](CONTENT[:60_000]))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(8, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(6, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "x"
    path.write_bytes(raw)
    before = os.listdir(tempfile.gettempdir())
    try:
        assert content(unpacked(str(path), kind)) == CONTENT[:60_000]
    except UffdError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        assert "get it again" in str(error)
    left = set(os.listdir(tempfile.gettempdir())) - set(before)
    assert not [name for name in left if name.startswith("gdb-uffd-")]


@pytest.mark.parametrize("kind", KINDS)
def test_bombs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACK[kind](bytes(64 << 20)))
    with pytest.raises(UffdError, match="unpacks to more than 0 GiB"):
        unpacked(str(path), kind, limit=1 << 20)
    assert os.fstat(unpacked(str(path), kind)).st_blocks == 0


def test_the_last_of_the_disk_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "KEEP_FREE", 1 << 60)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(CONTENT))
    with pytest.raises(UffdError, match=r"cannot be unpacked into .*\(No space left.*TMPDIR"):
        unpacked(str(path), "gzip")


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "x.zst"
    path.write_bytes(PACK["zstd"](CONTENT))
    with pytest.raises(UffdError, match=r"zstd needs Python's package zstandard.*pip install"):
        unpacked(str(path), "zstd")


def made_core() -> bytes:
    notes = prstatus(77, signal=6) + prpsinfo(77, b"made") + auxv((9, 1))
    return core(notes, [Load(0x10000, b"x" * PAGE), Load(0x20000, bytes(5 * PAGE) + b"y" * PAGE)])


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_cores_open(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"made.core.{ENDINGS[kind]}"
    path.write_bytes(PACK[kind](made_core()))
    trace = gdb_uffd.trace.open(str(path))
    assert trace.path == str(path) and len(trace.snapshots) == 1
    snapshot = trace.snapshot(0)
    assert snapshot.read(0x10000, 2) == b"xx" and snapshot.read(0x25000, 2) == b"yy"
    assert trace.snapshots[0].signal == 6
    snapshot.close()


def test_what_is_compressed_but_no_core(tmp_path: Path) -> None:
    for raw, expected in ((b"hello" * 999, "not an ELF file"), (b"", "not|cannot")):
        path = tmp_path / "x.zst"
        path.write_bytes(PACK["zstd"](raw))
        with pytest.raises(UffdError, match=expected):
            gdb_uffd.trace.open(str(path))
    path = tmp_path / "x.bz2"
    path.write_bytes(bz2.compress(made_core()))
    with pytest.raises(UffdError, match="not an ELF file"):
        gdb_uffd.trace.open(str(path))
