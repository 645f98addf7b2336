"""What is written for the user is whole or not there, also where the writer is killed half way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import List

import pytest
from harness import ROOT
from trace_cores import PAGE, Load, auxv, prpsinfo, simple

from gdb_uffd import outputs
from gdb_uffd.trace.scratch import Scratch

BEGIN = """
import os, sys
sys.path.insert(0, sys.argv[1])
folder = sys.argv[2]
def half_way(*_):
    print("half way", flush=True)
    sys.stdin.read()
"""
FILE = """
from gdb_uffd import outputs
with outputs.whole_file(folder + "/file", REPLACE) as fd:
    os.write(fd, b"half")
    half_way()
"""
NO_TMPFILE = "os.O_TMPFILE = os.O_DIRECTORY | os.O_WRONLY\n"  # EISDIR, as where there is none
WRITERS = {
    "file": FILE.replace("REPLACE", "False"),
    "replaced": FILE.replace("REPLACE", "True"),
    "named": NO_TMPFILE + FILE.replace("REPLACE", "False"),
    "core": """
from contextlib import closing
from gdb_uffd import trace
from gdb_uffd.trace.core import core_write
from gdb_uffd.trace.store import export
core_write._Core._write_headers = half_way
with closing(trace.open(folder + "/given/core")) as opened:
    export.export_snapshot(opened.snapshot(0), folder + "/file")
""",
    "pack": """
from gdb_uffd.trace.store.core_pack import pack_core
pack_core(folder + "/given/core", folder + "/file", progress=half_way)
""",
    "import": """
from gdb_uffd.trace.store.importing import import_cores
import_cores([folder + "/given/core"] * 2, folder + "/file", progress=half_way)
""",
    "unpack": """
from gdb_uffd.trace.store.packed import unpack_as
unpack_as(folder + "/file", lambda made: (open(made + "/core", "w").write("x"), half_way()))
""",
    "download": """
from gdb_uffd.trace.files import debuginfod
from io import BytesIO
class Answer(BytesIO):
    headers = {}
    def read1(self, size):
        if self.tell(): half_way()
        return super().read(2)
debuginfod._opened = lambda *_: Answer(b"\x7fELF, some bytes")
os.environ["XDG_CACHE_HOME"] = folder
debuginfod.DebuginfodClient(["http://127.0.0.1:9"]).get(b"abcd")
""",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    given = tmp_path / "given"
    given.mkdir()
    notes = prpsinfo(77, b"it") + auxv((9, 0x400000))
    (given / "core").write_bytes(simple(notes, [Load(0x10000, b"x" * PAGE)]))
    return tmp_path


def left(folder: Path) -> List[str]:
    """All files below it but what was there."""
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()]
    return sorted(p for p in found if not p.startswith("given/"))


def killed(script: str, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + script, str(ROOT), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("writer", [w for w in WRITERS if w not in ("named", "import", "unpack")])
def test_a_killed_writer_leaves_nothing(folder, writer):
    killed(WRITERS[writer], folder)
    assert left(folder) == []


@pytest.mark.parametrize("writer", ["named", "import", "unpack"])
def test_what_must_have_a_name_goes_with_the_next(folder, writer, monkeypatch):
    """Folders; and files where the file system has none without a name."""
    killed(WRITERS[writer], folder)
    assert not (folder / "file").exists() and not (folder / "file.uffd").exists()
    assert left(folder) != []
    if writer == "named":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)
        with outputs.whole_file(str(folder / "file")) as fd:
            os.write(fd, b"whole")
        assert left(folder) == ["file"] and (folder / "file").read_bytes() == b"whole"
        return
    name = "file.uffd" if writer == "import" else "file"
    with closing(Scratch(writer, str(folder / name))) as made:
        made.become(str(folder / name))
    assert left(folder) == [] and (folder / name).is_dir()
    assert os.listdir(folder / name) == [] and len(os.listdir(folder)) == 2


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def kind(request, monkeypatch) -> None:
    if not request.param:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)


def test_a_file_appears_whole(kind, tmp_path):
    path = tmp_path / "file"
    with outputs.whole_file(str(path)) as fd:
        os.write(fd, b"some")
        assert not path.exists()
    assert path.read_bytes() == b"some" and path.stat().st_mode & 0o7777 == 0o600
    with outputs.whole_file(str(path), replace=True) as fd:
        os.write(fd, b"other")
        assert path.read_bytes() == b"some"
    assert path.read_bytes() == b"other" and os.listdir(tmp_path) == ["file"]


def test_what_is_there_is_kept(kind, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileExistsError), outputs.whole_file(str(path)):
        path.write_text("another's")
    assert path.read_text() == "another's" and os.listdir(tmp_path) == ["file"]


def test_what_fails_leaves_nothing(kind, tmp_path):
    with contextlib.suppress(ZeroDivisionError), outputs.whole_file(str(tmp_path / "f")):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError), outputs.whole_file(str(tmp_path / "none/f")):
        pass


def test_two_at_a_time_leave_each_other_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)
    path = str(tmp_path / "file")
    with pytest.raises(FileExistsError), outputs.whole_file(path) as first:
        os.write(first, b"first")
        with outputs.whole_file(path) as second:
            os.write(second, b"second")
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["file"] and Path(path).read_bytes() == b"second"
