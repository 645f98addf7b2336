"""`files-from`: folders, heaps of libraries, packages, container images, hostile archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import pytest
import zstandard
from trace_cores import Told, below, build_library, kernel_told, relocated

from gdb_uffd.client.show.progress import progress_text
from gdb_uffd.protocol.messages import Progress
from gdb_uffd.trace.core.core import open_core
from gdb_uffd.trace.core.elf import ElfImage
from gdb_uffd.trace.files import image
from gdb_uffd.trace.files.files_from import open_place, split
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.opening import open_trace

Entry = Union[bytes, str, None]
"""A file's content, where a link leads ("=NAME": a hard link), None for a folder."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return kernel_told(tmp_path_factory.mktemp("original"))


@pytest.fixture
def moved(original: Told, tmp_path: Path) -> Iterator[Told]:
    """The core; its program and library are only below tmp_path/root."""
    with relocated(original, tmp_path / "root"):
        yield original


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where copies go; nothing may be left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def tar(entries: Sequence[Tuple[str, Entry]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1_000_000_000
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                hard = content.startswith("=")
                info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
                info.linkname = content.lstrip("=")
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def program_files(moved: Told, root: Path) -> List[Tuple[str, Entry]]:
    """Those of the core's own files that are not where they were, as entries of a layer."""
    assert moved.library is not None
    paths = (moved.library, moved.program)
    return [(str(p).lstrip("/"), below(root, p).read_bytes()) for p in paths]


def docker_save(layers: Sequence[bytes]) -> bytes:
    """As Docker wrote them before it took to OCI's layout."""
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": "x.json", "RepoTags": ["a:1"], "Layers": names}]).encode()
    return tar([*zip(names, layers), ("manifest.json", manifest)])


def oci(layers: Sequence[bytes], nested: bool = True) -> List[Tuple[str, Entry]]:
    """An OCI image layout, its image behind an index of platforms as `docker buildx` makes it."""
    blobs: Dict[str, bytes] = {}

    def blob(data: bytes) -> Dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{name}"] = data
        return {"digest": f"sha256:{name}", "size": len(data)}

    kind = "application/vnd.oci.image.layer.v1.tar"
    manifest = {"layers": [{**blob(layer), "mediaType": kind} for layer in layers]}
    attested = {"layers": [{**blob(b"{}"), "mediaType": "application/vnd.in-toto+json"}]}
    entries = [
        {**blob(json.dumps(manifest).encode()), "platform": {"os": "linux"}},
        {**blob(json.dumps(attested).encode()), "platform": {"os": "unknown"}},
    ]
    index = json.dumps({"manifests": entries}).encode()
    if nested:
        index = json.dumps({"manifests": [blob(index)]}).encode()
    version = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()
    return [("oci-layout", version), ("index.json", index), *blobs.items()]


def whole(told: Told, *places: Path) -> None:
    """Nothing is missing: code of the library that is in no core can be read."""
    wanted = FileSearch(files_from=tuple(map(str, places)))
    try:
        snapshot = open_core(str(told.core), None, wanted)
        try:
            assert snapshot.warnings == [] and wanted.problems() == []
            assert snapshot.read(told.one("libtext"), 4) != bytes(4)
            assert all(not m.unavailable for m in snapshot.mappings if m.name.startswith("/"))
        finally:
            snapshot.close()
    finally:
        wanted.close()


def lacks(told: Told, *places: Path) -> str:
    """What is said when the places do not help."""
    wanted = FileSearch(files_from=tuple(map(str, places)))
    try:
        snapshot = open_core(str(told.core), None, wanted)
        lines = [*snapshot.warnings, *wanted.problems()]
        assert snapshot.warnings
        snapshot.close()
        return "\n".join(lines)
    finally:
        wanted.close()


# -- folders ----------------------------------------------------------------------------------


def test_a_root(moved: Told, tmp_path: Path) -> None:
    whole(moved, tmp_path / "root")


def test_a_heap_of_libraries_under_other_names(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    heap = tmp_path / "heap" / "deep"
    heap.mkdir(parents=True)
    for number, path in enumerate((moved.library, moved.program)):
        shutil.copy2(below(tmp_path / "root", path), heap / str(number))
    (heap / "pipe").touch()
    (heap / "libtold.so").write_bytes(b"\x7fELF and no more")
    whole(moved, tmp_path / "heap")


def test_packages_beside_each_other(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    for number, path in enumerate((moved.library, moved.program)):
        target = below(tmp_path / "packages" / f"p{number}_1.0_amd64", path)
        target.parent.mkdir(parents=True)
        shutil.copy2(below(tmp_path / "root", path), target)
    whole(moved, tmp_path / "packages")


def test_the_places_are_asked_in_turn(moved: Told, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    whole(moved, tmp_path / "empty", tmp_path / "root")


def test_what_lies_there_is_checked(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    other = tmp_path / "other"
    other.mkdir()
    below(tmp_path / "root", moved.library).write_bytes(build_library(other, 2).read_bytes())
    assert "the core was made with build-id" in lacks(moved, tmp_path / "root")


def test_links_stay_inside(tmp_path: Path) -> None:
    """As chroot(2) would follow them, "/" being the folder."""
    root = tmp_path / "root"
    (root / "usr/lib64").mkdir(parents=True)
    (root / "usr/lib64/real.so").write_bytes(b"inside")
    (root / "lib64").symlink_to("/usr/lib64")
    (root / "usr/lib64/one.so").symlink_to("../../../../../usr/lib64/real.so")
    (root / "usr/lib64/out.so").symlink_to("/etc/passwd")
    (root / "usr/lib64/loop.so").symlink_to("loop.so")
    place = open_place(str(root))
    inside = str(root / "usr/lib64/real.so")
    assert next(iter(place.by_path("/lib64/one.so"))) == inside
    assert next(iter(place.by_path("/lib64/real.so"))) == inside
    assert [*place.by_path("/lib64/out.so")] == [] == [*place.by_path("/lib64/loop.so")]
    assert [*place.by_path("/../../etc/passwd")] == []


def test_links_of_a_folder_of_the_user_s_own(moved: Told, tmp_path: Path) -> None:
    """Which is no root: by name, and by build-id."""
    assert moved.library is not None
    place = tmp_path / "links"
    name = ElfImage.from_file(below(tmp_path / "root", moved.program).read_bytes()).build_id().hex()
    by_id = place / ".build-id" / name[:2] / name[2:]
    by_id.parent.mkdir(parents=True)
    by_id.symlink_to(below(tmp_path / "root", moved.program))
    (place / "any").symlink_to(below(tmp_path / "root", moved.library))
    (place / "gone").symlink_to("/nosuch")
    whole(moved, place)


def test_before_and_after_the_merge_of_usr(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.so").write_bytes(b"x")
    place = open_place(str(tmp_path))
    assert next(iter(place.by_path("/usr/lib/a.so"))) == str(tmp_path / "lib/a.so")


def test_the_root_of_a_process(moved: Told) -> None:
    """/proc/PID/root reads as a link to "/", and is not that."""
    place = open_place("/proc/self/root")
    assert next(iter(place.by_path("/usr/bin/env"))) == "/proc/self/root/usr/bin/env"


def test_nothing_there(moved: Told, tmp_path: Path) -> None:
    assert "nosuch: no such file or folder" in lacks(moved, tmp_path / "nosuch")
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: not a folder or archive" in lacks(moved, tmp_path / "pipe")


def test_paths_of_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app:1.2.tar").touch()
    monkeypatch.chdir(tmp_path)
    found = split("a::app:1.2.tar:/b")
    assert found == (str(tmp_path / "a"), str(tmp_path / "app:1.2.tar"), "/b")


# -- images -----------------------------------------------------------------------------------


PACKINGS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", ["docker", "oci", "oci-folder", "tar"])
def test_an_image(moved: Told, tmp_path: Path, kind: str, packing: str) -> None:
    """With the files in two layers: the library in the upper one, over another build of it."""
    assert moved.library is not None
    pack = PACKINGS[packing]
    other = tmp_path / "other"
    other.mkdir()
    wrong = build_library(other, 2).read_bytes()
    library, program = program_files(moved, tmp_path / "root")
    layers = [pack(tar([(library[0], wrong), program])), pack(tar([library]))]
    target = tmp_path / "image.tar"
    if kind == "docker":
        target.write_bytes(docker_save(layers))
    elif kind == "oci":
        target.write_bytes(pack(tar(oci(layers))))
    elif kind == "tar":
        target.write_bytes(pack(tar([program, library])))
    else:
        target = tmp_path / "image"
        for name, content in oci(layers, nested=False):
            assert isinstance(content, bytes)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    whole(moved, target)


def test_unpacking_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the server to start waits longer then."""
    monkeypatch.setattr("gdb_uffd.trace.files.compressed.TOLD_EVERY", 1 << 20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar([("a", bytes(3 << 20))])))
    told: List[Optional[Progress]] = []
    wanted = FileSearch(files_from=(str(tmp_path / "a.tar.gz"),), tell=told.append)
    assert next(iter(wanted.by_path("/a"))).endswith("/a.tar.gz/a")
    wanted.close()
    first, *_, last = told
    assert first is not None and last is None
    assert progress_text(first) == f"unpacking {tmp_path}/a.tar.gz: 1 MiB"


def test_what_an_upper_layer_removed_is_gone(tmp_path: Path) -> None:
    tree: image.Tree = {}
    lower = [("a/one", b"1"), ("a/two", b"2"), ("b/c/three", b"3"), ("d", b"4")]
    upper: List[Tuple[str, Entry]] = [
        ("b/c/new", b"n"), ("b/.wh..wh..opq", b""), ("a/.wh.two", b""), ("d/e", b"5"),
    ]  # fmt: skip
    lay(tree, lower)
    lay(tree, upper)
    assert sorted(path for path, _ in image.walk(tree)) == ["/a/one", "/b/c/new", "/d/e"]


def lay(tree: image.Tree, entries: Sequence[Tuple[str, Entry]]) -> None:
    archive = memoryview(tar(entries))
    image.apply_layer(tree, list(image.members(archive, "x")), archive)


def content(tree: image.Tree, path: str) -> bytes:
    found = image.find(tree, path)
    return bytes(found.content()) if isinstance(found, image.ArchivedFile) else b"?"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_links_of_an_image(form: int) -> None:
    tree: image.Tree = {}
    long = "x" * 150 + "/" + "y" * 200
    entries: List[Tuple[str, Entry]] = [
        ("usr/lib", None), ("lib", "usr/lib"), ("lib/a.so", b"A"), ("usr/lib/b.so", "/lib/a.so"),
        ("hard", "=usr/lib/a.so"), (long, b"L"), ("tolong", long), ("loop", "loop"),
        ("up", "../../../usr/lib/a.so"), ("nowhere", "/no/such"),
    ]  # fmt: skip
    archive = memoryview(tar(entries, form))
    image.apply_layer(tree, list(image.members(archive, "x")), archive)
    found = [content(tree, p) for p in ("/usr/lib/a.so", "/lib/b.so", "/hard", "/tolong", "/up")]
    assert found == [b"A", b"A", b"A", b"L", b"A"]
    assert content(tree, "/loop") == b"?" == content(tree, "/nowhere")


# -- hostile ones -----------------------------------------------------------------------------


def test_no_member_escapes(tmp_path: Path, scratch: Path) -> None:
    entries: List[Tuple[str, Entry]] = [
        ("../../out.so", b"\x7fELF out"),
        ("/abs.so", b"\x7fELF abs"),
        ("link", str(tmp_path)),
        ("link/through.so", b"\x7fELF through"),
    ]
    (tmp_path / "a.tar").write_bytes(tar(entries))
    place = open_place(str(tmp_path / "a.tar"))
    assert [*place.by_path("/out.so")] == [] == [*place.by_path("/../../out.so")]
    for path in ("/abs.so", "/link/through.so"):
        (copy,) = place.by_path(path)
        assert Path(copy).resolve().is_relative_to(scratch.resolve())
    place.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "scratch"]


@pytest.mark.parametrize(
    "damage",
    [
        b"no archive at all" * 100,
        tar([("a", b"x" * 5000)])[:2048],
        b"\x1f\x8b\x08garbage",
        gzip.compress(tar([("a", b"x" * 5000)]))[:-30],
        tar([("manifest.json", b"{")]),
        tar([("manifest.json", json.dumps([{"Layers": ["gone.tar"]}]).encode())]),
        tar([("manifest.json", json.dumps([{"Layers": ["a"]}]).encode()), ("a", b"no tar" * 200)]),
        tar([("manifest.json", json.dumps([{"Layers": [["deep"]]}]).encode()),
             ("index.json", b"[" * 100_000)]),
    ],
    ids=["text", "tar-cut", "gzip-begins", "gzip-cut", "manifest-cut", "layer-gone", "layer-text",
         "layer-list"],
)  # fmt: skip
def test_a_damaged_archive_is_one_line(moved: Told, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(damage)
    told = lacks(moved, tmp_path / "a.tar").splitlines()
    assert [line for line in told if line.startswith(f"{tmp_path}/a.tar: ")], told


def test_a_header_that_claims_much(tmp_path: Path) -> None:
    """A name of eight gigabytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate((8 << 30) + 4096)
    place = open_place(str(tmp_path / "a.tar"))
    assert [*place.by_path("/a")] == [] and "a header of" in place.problem


def test_bombs(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar([("a", bytes(4 << 20))])))
    place = open_place(str(tmp_path / "a.tar.gz"), None, 1 << 20)
    assert [*place.by_path("/a")] == [] and "unpacks to more than" in place.problem
    place.close()


def test_folders_without_end(tmp_path: Path) -> None:
    deep = "d/" * 1500 + "f"
    (tmp_path / "a.tar").write_bytes(tar([(deep, b"\x7fELF"), ("l", "l/" * 1000), ("m", "d/" * 9)]))
    place = open_place(str(tmp_path / "a.tar"))
    assert [*place.by_path("/l/x")] == [] and [*place.by_build_id(b"ab")] == []
    assert [*place.by_path("/" + deep)] == []  # too long a name for the scratch folder
    place.close()


# -- what gdb is told -------------------------------------------------------------------------


def test_debug_files_are_linked_for_gdb(moved: Told, tmp_path: Path) -> None:
    """By build-id, wherever they lie in the place."""
    import subprocess

    assert moved.library is not None
    library = below(tmp_path / "root", moved.library)
    debug = tmp_path / "root" / "heap" / "told.debug"
    debug.parent.mkdir()
    subprocess.run(["objcopy", "--only-keep-debug", library, debug], check=True)
    wanted = FileSearch(files_from=(str(tmp_path / "root"),))
    trace = open_trace(str(moved.core), None, wanted)
    snapshot = trace.snapshot(0)
    try:
        name = ElfImage.from_file(library.read_bytes()).build_id().hex()
        root = Path(trace.sysroot)  # type: ignore[attr-defined]
        link = root / f"usr/lib/debug/.build-id/{name[:2]}/{name[2:]}.debug"
        assert link.resolve() == debug.resolve()
        assert snapshot.warnings == []  # the debug file has the build-id, and did not serve as code
    finally:
        snapshot.close()
        trace.close()
        wanted.close()
