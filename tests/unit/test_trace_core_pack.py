"""`gdb-uffd pack CORE`: a core and its files as one file, opened where none of the files is."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
import zstandard
from harness import foreign
from trace_cores import Told, build_library, kernel_told

from gdb_uffd import cli
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.trace.core.elf import ElfImage
from gdb_uffd.trace.opening import open_trace
from gdb_uffd.trace.store import core_packed
from gdb_uffd.trace.store.verify import verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return kernel_told(tmp_path_factory.mktemp("original"))


@pytest.fixture
def told(original: Told) -> Iterator[Told]:
    """The files are where they were; `away` takes them away until the test ends."""
    yield original
    for path in files(original):
        if path.with_suffix(".away").exists():
            path.unlink(missing_ok=True)
            path.with_suffix(".away").rename(path)


def mapped(told: Told) -> int:
    """How many files the program had mapped: before glibc 2.34 libc was several."""
    return len(foreign.mapped(Path(told.core)))


def files(told: Told) -> Tuple[Path, Path]:
    assert told.library is not None
    return told.library, told.program


def away(told: Told) -> None:
    for path in files(told):
        path.rename(path.with_suffix(".away"))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packed cores are unpacked; nothing may be left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> Tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def is_whole(path: Path, told: Told) -> None:
    """All is there, and the same as what the core alone has."""
    alone = open_trace(str(told.core))
    trace = open_trace(str(path))
    one, two = alone.snapshot(0), trace.snapshot(0)
    try:
        assert trace.path == two.path == str(path)
        assert trace.warnings == two.warnings == []
        assert two.read(told.one("libtext"), 16) != bytes(16)
        assert two.read(told.one("libdata"), 8) == one.read(told.one("libdata"), 8)
        assert two.threads == one.threads and two.recorded_ns == one.recorded_ns // 10**9 * 10**9
        assert [(m.start, m.end, m.name) for m in two.mappings] == [
            (m.start, m.end, m.name) for m in one.mappings
        ]
        root = Path(trace.sysroot)  # type: ignore[attr-defined]
        for each in files(told):
            assert (root / str(each).lstrip("/")).resolve().is_file()
    finally:
        for opened in (one, two, alone, trace):
            opened.close()


def test_packed_and_opened_elsewhere(told: Told, tmp_path: Path, capsys: Capture) -> None:
    """The program, its library, libc and ld.so: all that was mapped."""
    target = tmp_path / "p.uffd.zst"
    code, out, err = run(capsys, "pack", told.core, "-o", target)
    assert (code, err) == (0, "") and out.startswith(f"{target}: ") and "missing" not in out
    assert f"core, {mapped(told)} files" in out, out
    assert target.stat().st_mode & 0o777 == 0o600
    away(told)
    is_whole(target, told)
    code, out, err = run(capsys, "info", target)
    assert code == 0 and err == "" and "packed core" in out
    code, out, err = run(capsys, "import", target, "-o", tmp_path / "t", "--self-contained")
    assert (code, err) == (0, ""), err
    trace = open_trace(str(tmp_path / "t.uffd"))
    snapshot = trace.snapshot(0)
    assert snapshot.warnings == [] and snapshot.read(told.one("libtext"), 16) != bytes(16)
    assert verify(trace).whole  # type: ignore[arg-type]
    snapshot.close()
    trace.close()


def test_any_tar_and_any_gdb_take_it(told: Told, tmp_path: Path, capsys: Capture) -> None:
    run(capsys, "pack", told.core, "-o", tmp_path / "p.uffd.zst")
    data = zstandard.ZstdDecompressor().stream_reader((tmp_path / "p.uffd.zst").open("rb")).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        core = archive.extractfile("core")
        assert core is not None and core.read() == told.core.read_bytes()
    assert names[:2] == ["gdb_uffd-core", "core"] and f"root{told.program}" in names
    code, out, err = run(capsys, "unpack", tmp_path / "p.uffd.zst")
    assert (code, out, err) == (0, f"{tmp_path}/p.unpacked\n", "")
    made = tmp_path / "p.unpacked"
    assert (made / "core").read_bytes() == told.core.read_bytes()
    assert (made / f"root{told.program}").read_bytes() == told.program.read_bytes()
    assert "exists already" in run(capsys, "unpack", tmp_path / "p.uffd.zst")[2]


def test_what_cannot_be_had_is_on_the_last_line(
    told: Told, tmp_path: Path, capsys: Capture
) -> None:
    """Another build of the library is as good as none."""
    library, _ = files(told)
    library.rename(library.with_suffix(".away"))
    build_library(library.parent, 2)
    code, out, err = run(capsys, "pack", told.core, "-o", tmp_path / "p.uffd.zst")
    assert code == 0 and out.splitlines()[-1].endswith("; missing: libtold.so"), out
    assert err.startswith("warning: ") and "has build-id" in err
    snapshot = open_trace(str(tmp_path / "p.uffd.zst")).snapshot(0)
    assert "libtold.so" in "".join(snapshot.warnings)
    snapshot.close()


def test_files_from_elsewhere_go_into_it(told: Told, tmp_path: Path, capsys: Capture) -> None:
    """As with /proc/PID/root of a container, under the paths that the core has."""
    for path in files(told):
        target = tmp_path / "root" / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    away(told)
    target = tmp_path / "p.uffd.zst"
    code, out, err = run(capsys, "pack", told.core, "-o", target, "--files-from", tmp_path / "root")
    assert (code, err) == (0, "") and "missing" not in out
    shutil.rmtree(tmp_path / "root")
    is_whole(target, told)


def test_debug_files_go_into_it(told: Told, tmp_path: Path, capsys: Capture) -> None:
    """The library's by build-id, the program's by .gnu_debuglink."""
    library, program = files(told)
    debug = tmp_path / "debug"
    name = ElfImage.from_file(library.read_bytes()).build_id().hex()
    by_id = debug / ".build-id" / name[:2] / f"{name[2:]}.debug"
    by_link = program.parent / ".debug" / "linked.debug"
    for path, place in ((library, by_id), (program, by_link)):
        place.parent.mkdir(parents=True)
        subprocess.run(["objcopy", "--only-keep-debug", path, place], check=True)
        shutil.copy2(path, path.with_suffix(".away"))
        subprocess.run(["strip", path], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={by_link}", program], check=True)
    target = tmp_path / "p.uffd.zst"
    code, out, err = run(
        capsys, "pack", "--debug", told.core, "-o", target, "--debug-directory", debug
    )
    shutil.rmtree(by_link.parent)
    assert (code, err) == (0, ""), err
    line = out.splitlines()[-1]
    assert (
        f"core, {mapped(told)} files, " in line and "libtold.so" not in line.partition("without")[2]
    ), line
    shutil.rmtree(debug)
    for path in files(told):
        path.unlink()
    trace = open_trace(str(target))
    snapshot = trace.snapshot(0)
    found = Path(trace.sysroot) / "usr/lib/debug/.build-id"  # type: ignore[attr-defined]
    kept = [p.with_suffix(".away").read_bytes() for p in files(told)]
    ids = {ElfImage.from_file(data).build_id().hex() for data in kept}
    assert ids <= {p.parent.name + p.stem for p in found.rglob("*.debug")}
    snapshot.close()
    trace.close()


def test_the_default_name(told: Told, tmp_path: Path, capsys: Capture) -> None:
    core = tmp_path / "core.1.zst"
    core.write_bytes(zstandard.ZstdCompressor().compress(told.core.read_bytes()))
    os.utime(core, ns=(told.core.stat().st_mtime_ns,) * 2)
    code, out, err = run(capsys, "pack", core)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path}/core.1.uffd.zst: ")
    is_whole(tmp_path / "core.1.uffd.zst", told)
    assert "exists already" in run(capsys, "pack", core)[2]


def test_ctrl_c_leaves_nothing(
    told: Told, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gdb_uffd.cli.pack.progress", lambda _word: lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    code, out, err = run(capsys, "pack", told.core, "-o", tmp_path / "p.uffd.zst")
    assert (code, out) == (130, "") and err.splitlines()[-1].startswith("gdb-uffd: interrupted")
    assert os.listdir(tmp_path) == ["scratch"]


# -- damaged and hostile ones -----------------------------------------------------------------


def packed(members: List[Tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, (name, content) in enumerate([("gdb_uffd-core", b"1"), *members]):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if number == len(members):
                info.type = kind
                info.linkname = "/etc/passwd"
                info.size = 0 if kind != tarfile.REGTYPE else info.size
            archive.addfile(info, io.BytesIO(content))
    return zstandard.ZstdCompressor().compress(out.getvalue())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packed([("core", b"no core")]), "not an ELF file"),
        (packed([("root/a", b"x")]), "truncated packed core"),
        (packed([("core", b"x"), ("root/../../out", b"x")]), "is no part of one"),
        (packed([("core", b"x"), ("/etc/out", b"x")]), "is no part of one"),
        (packed([("core", b"x"), ("root", b"x")]), "is no part of one"),
        (packed([("core", b"x"), ("root/link", b"")], tarfile.SYMTYPE), "is no part of one"),
        (packed([("core", b"x"), ("root/dev", b"")], tarfile.CHRTYPE), "is no part of one"),
        (packed([("core", b"x"), ("core", b"y")]), "cannot be unpacked"),
        (packed([("core", b"x"), ("root/" + "d/" * 300 + "f", b"y")]), "is no part of one"),
        (packed([("core", b"x" * 9000)])[:-20], "truncated"),
    ],
)  # fmt: skip
def test_a_bad_one_is_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "p.uffd.zst"
    path.write_bytes(data)
    with pytest.raises(UffdError) as error:
        open_trace(str(path))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["p.uffd.zst", "scratch"]


def test_bombs(tmp_path: Path) -> None:
    path = tmp_path / "p.uffd.zst"
    path.write_bytes(packed([("core", bytes(1 << 20))]))
    (tmp_path / "to").mkdir()
    with pytest.raises(UffdError, match="unpacks to more than"):
        core_packed.unpack_core_into(str(path), str(tmp_path / "to"), chosen=1 << 19)
