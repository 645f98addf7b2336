"""Packed traces, traces that hold their files, and the shell commands about traces."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_cores import PAGE, Told, kernel_told
from trace_stores import BASE, Recorded, info, read_page, record, thread

import gdb_uffd.trace
from gdb_uffd import cli
from gdb_uffd.protocol.model import Mapping, MemoryUnavailable, UffdError
from gdb_uffd.trace.files.files import FileRef
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store import packed
from gdb_uffd.trace.store.importing import import_cores
from gdb_uffd.trace.store.pack import pack, unpack
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import verify
from gdb_uffd.trace.store.write import TraceWriter


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return kernel_told(tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("made"), snapshots=4, pages=8)


def open_store(path: "str | Path") -> StoreTrace:
    trace = gdb_uffd.trace.open(str(path))
    assert isinstance(trace, StoreTrace)
    return trace


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("TMPDIR")))


def temporary() -> List[str]:
    """Our files in TMPDIR."""
    return [n for n in os.listdir(tempfile.gettempdir()) if n.startswith("gdb-uffd-")]


def packed_file(trace: StoreTrace, path: Path, **more: Any) -> Path:
    done = pack(trace, str(path), **more)
    assert done.path == str(path) and done.size == path.stat().st_size
    return path


def test_a_packed_trace_is_the_trace(made: Recorded, tmp_path: Path) -> None:
    before = temporary()
    path = packed_file(open_store(made.path), tmp_path / "t.uffd.zst")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and os.listdir(tmp_path) == [path.name]
    trace = open_store(path)
    assert temporary() == before  # open, and nameless
    assert trace.path == str(path) and verify(trace).whole
    for number, memory in enumerate(made.memories):
        snapshot = trace.snapshot(number)
        assert snapshot.path == str(path)
        assert all(read_page(snapshot, p) == memory.at(p) for p in range(8))
    trace.close()
    with pytest.raises(UffdError, match="exists already"):
        pack(open_store(made.path), str(path))
    target = unpack(str(path), str(tmp_path / "again"))
    assert target == str(tmp_path / "again.uffd")
    for name in ("pages", "sums", "index.sqlite"):
        assert stat.S_IMODE(os.stat(f"{target}/{name}").st_mode) == 0o600
    assert Path(target, "pages").read_bytes() == Path(made.path, "pages").read_bytes()
    assert verify(open_store(target)).whole
    with pytest.raises(UffdError, match="exists already"):
        unpack(str(path), str(tmp_path / "again.uffd"))


def test_any_tar_reads_it(made: Recorded, tmp_path: Path) -> None:
    path = packed_file(open_store(made.path), tmp_path / "t.uffd.zst")
    raw = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert tuple(tar.getnames()) == packed.MEMBERS
        pages = tar.extractfile("pages")
        assert pages is not None and pages.read() == Path(made.path, "pages").read_bytes()


def test_a_trace_whose_writer_was_killed_is_packed_whole(tmp_path: Path) -> None:
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        pending = writer.begin(info(), [thread()], b"", [Mapping(BASE, BASE + PAGE, 3)])
        pending.area(BASE, 1)
        pending.put(BASE, b"p" * PAGE)
        pending.commit()
        pending = writer.begin(info(), [thread()], b"", [Mapping(BASE, BASE + PAGE, 3)])
        pending.put(BASE, b"q" * PAGE)
        shutil.copytree(writer.path, tmp_path / "killed.uffd")
    path = packed_file(open_store(tmp_path / "killed.uffd"), tmp_path / "p.zst")
    assert read_page(open_store(path).snapshot(0), 0) == b"p" * PAGE


def test_files_are_in_the_packed_trace(told: Told, tmp_path: Path) -> None:
    """Elsewhere, without the program and its library, all is as here."""
    assert told.library is not None
    done = import_cores([str(told.core)], str(tmp_path / "t"))
    trace = open_store(done.path)
    here = trace.snapshot(0)
    bare = packed_file(trace, tmp_path / "bare.zst", self_contained=False)
    full = packed_file(trace, tmp_path / "full.zst")
    own = import_cores([str(told.core)], str(tmp_path / "own"), self_contained=True).path
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    files = [told.program, told.library]
    for file in files:
        file.rename(hidden / file.name)
    try:
        with pytest.raises(MemoryUnavailable, match="no such file"):
            open_store(bare).snapshot(0).read(told.one("libtext"), 1)
        for path in (full, own):
            there = open_store(path)
            snapshot = there.snapshot(0)
            assert not snapshot.warnings and not there.warnings
            for m in here.mappings:
                for page in range(m.start, m.end, PAGE):
                    assert outcome(snapshot, page) == outcome(here, page), (m.name, hex(page))
            assert snapshot.symbol("main") == here.symbol("main") != None  # noqa: E711
            root = there.sysroot
            assert stat.S_IMODE(os.stat(root).st_mode) == 0o700
            assert snapshot.executable == root + str(told.program)
            for file in files:
                kept = Path(root + str(file))
                assert kept.read_bytes() == (hidden / file.name).read_bytes()
            libc = next(m.name for m in snapshot.mappings if "/libc" in m.name)
            assert os.path.samefile(root + libc, libc)
            assert os.path.exists(root + "/lib64/ld-linux-x86-64.so.2")  # ld.so's own name for it
            there.close()
            assert not os.path.exists(root)
    finally:
        for file in files:
            (hidden / file.name).rename(file)
    assert open_store(full).snapshot(0).executable == str(told.program)


def outcome(snapshot: Any, page: int) -> Any:
    try:
        return snapshot.read(page, PAGE)
    except MemoryUnavailable:
        return None


def test_a_trace_that_lacks_pages_is_not_packed(made: Recorded, tmp_path: Path) -> None:
    short = tmp_path / "short.uffd"
    shutil.copytree(made.path, short)
    with open(short / "pages", "r+b") as file:
        file.truncate(os.path.getsize(file.name) - 2 * PAGE)
    with pytest.raises(UffdError, match="2 pages are missing from its page file; it is not packed"):
        pack(open_store(short), str(tmp_path / "p.zst"))
    assert not (tmp_path / "p.zst").exists()


def test_each_snapshot_of_a_packed_trace_has_its_files(tmp_path: Path) -> None:
    """Also those before the last, and each its own."""
    files = [tmp_path / name for name in ("one", "two")]
    contents = [b"1" * 3 * PAGE, b"2" * 2 * PAGE]
    with TraceWriter.create(str(tmp_path / "t")) as writer:
        for number, (file, content) in enumerate(zip(files, contents)):
            file.write_bytes(content)
            status = file.stat()
            mapped = [Mapping(BASE, BASE + len(content), 1, str(file), 0)]
            refs = {str(file): FileRef(b"", status.st_size, status.st_mtime_ns)}
            assert writer.begin(info(), [thread()], b"", mapped, refs).commit() == number
    path = packed_file(open_store(writer.path), tmp_path / "p.zst")
    for file in files:
        file.unlink()
    trace = open_store(path)
    for number, content in enumerate(contents):
        snapshot = trace.snapshot(number)
        assert not snapshot.warnings
        assert snapshot.read(BASE, len(content)) == content
    trace.close()


def test_files_that_are_gone_are_named(told: Told, tmp_path: Path) -> None:
    assert told.library is not None
    done = import_cores([str(told.core)], str(tmp_path / "t"))
    moved = told.library.with_suffix(".away")
    told.library.rename(moved)
    try:
        result = pack(open_store(done.path), str(tmp_path / "p.zst"))
    finally:
        moved.rename(told.library)
    assert result.missing == [f"{told.library}: no such file"]


def self_contained(tmp_path: Path, content: bytes, name: str = "") -> "tuple[str, Path]":
    """A trace that holds a file which is then gone."""
    file = tmp_path / "file"
    file.write_bytes(content)
    status = file.stat()
    path = name or str(file)
    pages = -(-len(content) // PAGE)
    with TraceWriter.create(str(tmp_path / "t"), self_contained=True) as writer:
        mappings = [Mapping(BASE, BASE + pages * PAGE, 1, path, 0)]
        refs = {path: FileRef(b"", status.st_size, status.st_mtime_ns)}
        pending = writer.begin(info(), [thread()], b"", mappings, refs)
        pending.commit()
    file.unlink()
    return writer.path, file


def test_a_damaged_page_of_a_stored_file(tmp_path: Path) -> None:
    """The bad page is named; the others of that file are still there."""
    content = b"".join(bytes([i]) * PAGE for i in range(1, 9)) + b"tail"
    path, file = self_contained(tmp_path, content)
    assert open_store(path).snapshot(0).read(BASE, len(content)) == content
    raw = bytearray(Path(path, "pages").read_bytes())
    raw[4 * PAGE + 9] ^= 1
    Path(path, "pages").write_bytes(raw)
    trace = open_store(path)
    snapshot = trace.snapshot(0)
    found = [outcome(snapshot, BASE + i * PAGE) for i in range(9)]
    assert found[3] is None
    with pytest.raises(MemoryUnavailable, match=r"checksum mismatch in .*pages at slot 4"):
        snapshot.read(BASE + 3 * PAGE, 1)
    for i in (0, 1, 2, 4, 5, 6, 7, 8):
        assert found[i] == content[i * PAGE : (i + 1) * PAGE].ljust(PAGE, b"\0")
    assert "the trace's copy of it is not whole" in snapshot.warnings[0]
    assert list(Path(trace.sysroot).rglob("file")) == []
    (bad,) = verify(trace).bad
    assert (bad.slot, bad.files, bad.places) == (4, [str(file)], {})


@pytest.mark.parametrize(
    "name", ["/../../../../tmp/evil", "/a/../../b", "/" + "x" * 300, "/" + "y/" * 3000]
)
def test_hostile_names_stay_below_the_sysroot(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * PAGE)
    path, _ = self_contained(tmp_path, b"x" * PAGE)
    # The same, recorded under a name that the recording machine could not have had.
    import sqlite3

    trace = open_store(path)
    row = trace.row(0)
    layout = trace.layout(row)
    (digest,) = layout.embedded.values()
    (ref,) = layout.files.values()
    (mapping,) = layout.mappings
    changed = form.SnapshotMappings(
        [Mapping(mapping.start, mapping.end, 1, name, 0)], {name: ref}, {name: digest}
    )
    raw = form.encode_layout(changed)
    db = sqlite3.connect(f"{path}/index.sqlite")
    new = form.SnapshotRow(
        row.info, row.slots, row.thread_list, form.digest("layout", raw), row.auxv
    )
    db.execute("INSERT INTO objects VALUES (?, 'layout', ?)", (new.layout, form.pack_object(raw)))
    db.execute("UPDATE snapshots SET layout = ?, crc = ?", (new.layout, new.values()[-1]))
    db.commit()
    db.close()
    trace = open_store(path)
    snapshot = trace.snapshot(0)
    assert outcome(snapshot, BASE) in (None, b"x" * PAGE)
    root = Path(trace.sysroot or tmp_path)
    assert all(root in p.resolve().parents for p in root.rglob("*"))
    assert not os.path.exists("/tmp/evil") and not os.path.exists("/b")
    trace.close()


def tar_zst(path: Path, members: List[Any]) -> Path:
    raw = b""
    for name, content, *more in members:
        block = tarfile.TarInfo(name)
        block.size = more[0] if more else len(content)
        block.type = more[1] if len(more) > 1 else tarfile.REGTYPE
        raw += block.tobuf(format=tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    path.write_bytes(zstandard.ZstdCompressor().compress(raw + bytes(1024)))
    return path


@pytest.fixture(scope="module")
def parts(made: Recorded) -> Dict[str, bytes]:
    return {n: Path(made.path, n).read_bytes() for n in ("index.sqlite", "sums", "pages")}


def hostile(parts: Dict[str, bytes]) -> Iterator[Any]:
    version = ("gdb_uffd-trace", str(form.VERSION).encode())
    good = [version, *((n, parts[n]) for n in ("index.sqlite", "sums", "pages"))]
    yield good, ""
    yield good[:3], "damaged packed trace|truncated"
    yield [version, good[2], good[1], good[3]], "'sums' is where 'index.sqlite' should be"
    yield [version, ("../../evil", b"x"), *good[2:]], "'../../evil' is where"
    yield [version, ("/etc/evil", b"x"), *good[2:]], "'/?etc/evil' is where"
    yield [version, ("index.sqlite", b"", 0, tarfile.SYMTYPE), *good[2:]], "is where"
    yield [version, ("index.sqlite", b"", 0, tarfile.DIRTYPE), *good[2:]], "is where"
    yield [version, ("index.sqlite", b"", 0, tarfile.CHRTYPE), *good[2:]], "is where"
    yield [version, ("index.sqlite", b"", 1 << 40, tarfile.XHDTYPE), *good[2:]], "is where"
    yield [version, ("index.sqlite", b"x", 1 << 60), *good[2:]], "unpacks to more than"
    yield [version, *good[1:3], ("pages", parts["pages"], 1 << 30)], "truncated packed file"
    yield [("gdb_uffd-trace", b"2000"), *good[1:]], r"format 2\.0, newer than"
    yield [("gdb_uffd-trace", b"x"), *good[1:]], "no version"
    yield [("gdb_uffd-trace", b""), *good[1:]], "no version"
    yield [("gdb_uffd-trace", b"1" * 600), *good[1:]], "no version"
    yield [("something", b"x")], "not an ELF file"


def test_hostile_archives(parts: Dict[str, bytes], tmp_path: Path) -> None:
    before = temporary()
    for members, expected in hostile(parts):
        path = tar_zst(tmp_path / "x.zst", members)
        for action in (gdb_uffd.trace.open, lambda p: unpack(p, str(tmp_path / "u"))):
            if not expected:
                action(str(path))
                shutil.rmtree(tmp_path / "u.uffd", ignore_errors=True)
                continue
            if expected == "not an ELF file" and action is not gdb_uffd.trace.open:
                continue
            with pytest.raises(UffdError, match=expected) as caught:
                action(str(path))
            text = str(caught.value)
            assert text.startswith(str(path)) and "\n" not in text
        assert os.listdir(tmp_path) == ["x.zst"]
    assert temporary() == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_archives(
    made: Recorded, parts: Dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    good = [("gdb_uffd-trace", str(form.VERSION).encode()), *parts.items()]
    path = tar_zst(tmp_path / "x.zst", good)
    inner = data.draw(st.booleans())
    raw = bytearray(path.read_bytes())
    if inner:  # a right checksum of wrong content
        raw = bytearray(zstandard.ZstdDecompressor().stream_reader(bytes(raw)).read())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(raw)) if inner else raw)
    before = temporary()
    try:
        trace = gdb_uffd.trace.open(str(path))
        for number in range(len(trace.snapshots)):
            snapshot = trace.snapshot(number)
            for page in range(8):
                found = outcome(snapshot, BASE + page * PAGE)
                assert found in (None, made.memories[number].at(page))
        trace.close()
    except UffdError as error:
        assert "\n" not in str(error)
    assert temporary() == before


def test_no_room_to_open_it(
    made: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gdb_uffd.trace.files import compressed

    path = packed_file(open_store(made.path), tmp_path / "t.zst")
    monkeypatch.setattr(compressed, "KEEP_FREE", 1 << 60)
    before = temporary()
    with pytest.raises(UffdError, match=r"cannot be unpacked into .*\(No space left"):
        gdb_uffd.trace.open(str(path))
    with pytest.raises(UffdError, match=r"u\.uffd: cannot be written \(No space left"):
        unpack(str(path), str(tmp_path / "u"))
    assert temporary() == before and os.listdir(tmp_path) == ["t.zst"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> "tuple[int, str, str]":
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_shell(told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed_core = tmp_path / "b.core.zst"
    packed_core.write_bytes(zstandard.ZstdCompressor().compress(told.core.read_bytes()))
    code, out, err = run(capsys, "import", told.core, packed_core, "-o", tmp_path / "t")
    assert (code, err) == (0, "") and "t.uffd: 2 snapshots, " in out
    trace = tmp_path / "t.uffd"
    code, out, err = run(capsys, "info", trace)
    assert code == 0 and "snapshot count  2" in out and str(told.program) in out
    code, out, err = run(capsys, "info", "--json", trace)
    facts = json.loads(out)
    assert facts["snapshot_count"] == 2 and facts["state"] == "finished"
    assert facts["size_bytes"] == sum(f.stat().st_size for f in trace.iterdir())
    assert json.loads(run(capsys, "info", "--json", told.core)[1])["kind"] == "core"
    code, out, err = run(capsys, "verify", trace)
    assert (code, err) == (0, "") and out.endswith(": all whole\n")
    code, out, err = run(capsys, "export", trace, "-n", "b.core.zst", "-o", tmp_path / "x.core")
    assert (code, err) == (0, "") and "x.core: " in out
    again = gdb_uffd.trace.open(str(tmp_path / "x.core")).snapshot(0)
    assert again.threads == gdb_uffd.trace.open(str(told.core)).snapshot(0).threads
    code, out, err = run(capsys, "pack", trace)
    assert (code, err) == (0, "") and out.startswith(f"{trace}.zst: ")
    code, out, err = run(capsys, "verify", f"{trace}.zst")
    assert code == 0
    code, out, err = run(capsys, "unpack", f"{trace}.zst", "-o", tmp_path / "u")
    assert (code, out) == (0, f"{tmp_path}/u.uffd\n")


def test_the_shell_lists_bad_pages(
    made: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.uffd"
    shutil.copytree(made.path, path)
    raw = bytearray((path / "pages").read_bytes())
    raw[2 * PAGE] ^= 1
    (path / "pages").write_bytes(raw)
    code, out, err = run(capsys, "verify", path)
    assert code == 1 and err == ""
    first, second, last = out.splitlines()
    assert first == f"slot 2: checksum mismatch in {path}/pages at slot 2"
    assert second.startswith(f"  {BASE + PAGE:#x} in snapshots 0")
    assert last == f"{path}: 4 snapshots, {len(raw) // PAGE - 1} pages: 1 bad page"
    code, out, err = run(capsys, "verify", "--json", path)
    verdict = json.loads(out)
    assert code == 1 and verdict["bad"][0]["slot"] == 2
    assert verdict["bad"][0]["places"][0]["address"] == hex(BASE + PAGE)


def test_the_shell_refuses_in_one_line(
    told: Told, made: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    for arguments, expected in (
        (("import", absent, "-o", tmp_path / "t"), "absent: no such file"),
        (("info", absent), "no such file"),
        (("verify", told.core), "a core has no checksums"),
        (("export", made.path, "-n", "9", "-o", absent), "no snapshot 9: 0 to 3"),
        (("export", made.path, "-n", "x", "-o", absent), "no snapshot 'x'"),
        (("pack", told.program), "is an executable or library, not a core"),
        (("pack", "--by-reference", told.core), "--by-reference is for traces"),
        (("pack", "--debug", made.path), "--debug is for cores"),
        (("pack", tmp_path), "is a directory"),
        (("unpack", told.core, "-o", absent), "not a packed trace"),
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 1 and out == ""
        assert err.startswith("gdb-uffd: ") and err.count("\n") == 1, err
        assert expected in err
    assert os.listdir(tmp_path) == []


def test_a_killed_pack_leaves_no_half_file(made: Recorded, tmp_path: Path) -> None:
    """What has the name is whole."""
    target = tmp_path / "p.zst"
    code = (
        "import os, signal, sys\n"
        "import gdb_uffd.trace\nfrom gdb_uffd.trace.store.pack import pack\n"
        "def die(done, total):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pack(gdb_uffd.trace.open({made.path!r}), {str(target)!r}, progress=die)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -9 and not target.exists()
