"""Compressed cores: opened as they are, damaged ones refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_cores import PAGE, Load, auxv, core, prpsinfo, prstatus

import gdb_uffd.trace
from gdb_uffd import cli
from gdb_uffd.client.show.progress import progress_text
from gdb_uffd.protocol.messages import Progress
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.trace.files import compressed, image
from gdb_uffd.trace.files.compressed import compression, unpacked
from gdb_uffd.trace.files.files_from import open_place
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.store import packed

ENDINGS = {"zstd": "zst", "gzip": "gz", "xz": "xz", "lz4": "lz4"}
PACK: Dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "gzip": gzip.compress,
    "xz": lambda raw: lzma.compress(raw, preset=0),  # 64 MiB in a quarter of the time
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


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("TMPDIR")))


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
    try:
        assert content(unpacked(str(path), kind)) == CONTENT[:60_000]
    except UffdError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        assert "get it again" in str(error)
    assert not os.listdir(tempfile.gettempdir())


@pytest.mark.parametrize("kind", KINDS)
def test_bombs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACK[kind](bytes(64 << 20)))
    with pytest.raises(UffdError, match=r"unpacks to more than 1 MiB; .*unpack-limit"):
        unpacked(str(path), kind, chosen=1 << 20)
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


# -- what is no core, or too much -------------------------------------------------------------


def opened(path: Path, **search: Any) -> None:
    with closing(gdb_uffd.trace.open(str(path), None, FileSearch(**search))):
        pass


class Counted:
    """How many bytes were unpacked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        whole = compressed.unpack

        def counted(*arguments: Any) -> Iterator[bytes]:
            for piece in whole(*arguments):
                self.bytes += len(piece)
                yield piece

        for module in (compressed, packed, image):
            monkeypatch.setattr(module, "unpack", counted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [b"", b"\x7fELF", b"MZ", made_core()[:16] + b"\x02\0"])
def test_what_is_no_core_is_not_unpacked(tmp_path, monkeypatch, kind, start):
    """By its first block; what the tools make of 64 MiB of zeros is small."""
    path = tmp_path / "x"
    path.write_bytes(PACK[kind](start + bytes(64 << 20)))
    counted = Counted(monkeypatch)
    with pytest.raises(UffdError) as error:
        opened(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    # The first round of the decompressor, once to look whether it is packed, once for this.
    assert counted.bytes <= 2 * 256 * 32768


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_begins_as_one(tmp_path, monkeypatch, kind):
    archive = tmp_path / "a.tar"
    archive.write_bytes(PACK[kind](b"no archive" * 100 + bytes(64 << 20)))
    core = tmp_path / "core"
    core.write_bytes(made_core())
    counted = Counted(monkeypatch)
    place = open_place(str(archive))
    assert list(place.by_path("/usr/lib/x")) == []
    assert "unpacks to no tar archive" in place.problem
    assert counted.bytes <= 256 * 32768


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_is_plausible(tmp_path, monkeypatch, kind):
    """Memory of one byte over and over: what a core may be, and what an attack is."""
    monkeypatch.setattr(compressed, "SLACK", 1 << 20)
    monkeypatch.setattr(compressed, "RATIO", 10)
    path = tmp_path / "x"
    path.write_bytes(PACK[kind](made_core() + b"a" * (8 << 20)))
    with pytest.raises(UffdError, match=r"more than 10 times its size; .*unpack-limit MIB"):
        opened(path)
    opened(path, unpack_limit=64 << 20)
    opened(path, unpack_limit=compressed.UNLIMITED)
    with pytest.raises(UffdError, match=r"more than 4 MiB; .*--unpack-limit"):
        opened(path, unpack_limit=4 << 20)
    path.write_bytes(PACK[kind](made_core() + bytes(8 << 20)))  # holes cost nothing
    opened(path)


def test_layers_in_layers_count_as_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "SLACK", 1 << 20)
    monkeypatch.setattr(compressed, "RATIO", 10)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = 8 << 20
        tar.addfile(info, io.BytesIO(b"a" * info.size))
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w") as tar:
        files = {"layer": gzip.compress(inner.getvalue()),
                 "manifest.json": b'[{"Layers": ["layer"]}]'}  # fmt: skip
        for name, content_ in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content_)
            tar.addfile(info, io.BytesIO(content_))
    path = tmp_path / "image"
    path.write_bytes(gzip.compress(outer.getvalue()))
    place = open_place(str(path))
    assert list(place.by_path("/big")) == [] and "times its size" in place.problem
    place = open_place(str(path), None, 64 << 20)
    assert len(list(place.by_path("/big"))) == 1
    place.close()


def test_the_setting_of_the_shell(tmp_path, capsys):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(made_core() + bytes(8 << 20)))
    assert cli.main(["info", "--unpack-limit", "2", str(path)]) != 0
    assert "unpacks to more than 2 MiB" in capsys.readouterr().err
    for limit in ("0", "64", "-1"):
        assert cli.main(["info", f"--unpack-limit={limit}", str(path)]) == 0


def test_how_far_it_is_is_told_now_and_then() -> None:
    said: "list[object]" = []
    progress = compressed.UnpackProgress("x.gz", said.append)
    for mib in (63, 1, 63, 2, 64):
        progress.add(mib << 20)
    told = [Progress("unpacking", "x.gz", done=mib << 20) for mib in (64, 129, 193)]
    assert progress_text(told[1]) == "unpacking x.gz: 129 MiB"
    assert said == told
    progress.end()
    assert len(said) == 4 and said[:3] == told
    small: "list[object]" = []
    progress = compressed.UnpackProgress("x.gz", small.append)
    progress.add((64 << 20) - 1)
    progress.end()
    assert small == []
