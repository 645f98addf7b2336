"""Cores whose program and libraries have moved: gdb's own settings find them for the server too."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from harness import cores, gdbs

from gdb_uffd import cli
from gdb_uffd.trace.core.elf import ElfImage

NAMES = ("zoo", "libtlslib.so", "plugin.so")


class Moved:
    """A zoo that crashed in `home` and was then moved: its files are below `root` now."""

    def __init__(self, built: Path, folder: Path) -> None:
        self.home, self.root = folder / "home", folder / "root"
        self.home.mkdir(parents=True)
        for name in NAMES:
            shutil.copy2(built / name, self.home / name)
        command = [str(self.home / "zoo"), str(self.home / "plugin.so"), "abort"]
        try:
            self.core = cores.kernel_core(command, folder / "core")
        except cores.NoKernelCore as why:
            pytest.skip(f"no kernel core: {why}")
        self.place = self.root / str(self.home).lstrip("/")
        self.place.parent.mkdir(parents=True)
        self.home.rename(self.place)

    def by_build_id(self, folder: Path) -> Path:
        """A debug directory that names them by build-id."""
        for name in NAMES:
            text = build_id(self.place / name)
            link = folder / ".build-id" / text[:2] / text[2:]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.place / name)
        return folder


def build_id(path: Path) -> str:
    return ElfImage.from_file(path.read_bytes()).build_id().hex()


@pytest.fixture(scope="module")
def moved(built, tmp_path_factory) -> Moved:
    return Moved(built, tmp_path_factory.mktemp("moved"))


def is_whole(gdb: gdbs.Gdb, spawned: str) -> None:
    """Symbols, lines and code of program and libraries are there, and calls cross them."""
    assert "unavailable" not in spawned and "Could not load" not in spawned, spawned
    text = gdb.run("backtrace")
    assert "zoo.c" in text and "abort" in text, text
    before = int(gdb.value("lib_tls"))
    gdb.value("bump_tls()")
    assert int(gdb.value("lib_tls")) == before + 1
    libraries = gdb.run("info sharedlibrary")
    assert "libtlslib.so" in libraries and "libc.so.6" in libraries, libraries
    gdb.run("uffd reset")


def test_what_is_missing_is_named(gdb, moved):
    text = " ".join(gdb.run(f"uffd spawn {moved.core}").split())
    assert "libtlslib.so: no such file" in text and "`set sysroot`" in text, text


def test_set_sysroot(gdb, moved):
    gdb.run(f"set sysroot {moved.root}")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    gdb.run("uffd kill")
    assert f'"{moved.root}"' in gdb.run("show sysroot")


def test_what_the_user_sets_meanwhile_stays(gdb, moved):
    """As the warning tells: set it, and spawn again."""
    gdb.run(f"uffd spawn {moved.core}")
    gdb.run(f"set sysroot {moved.root}")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    gdb.run("set sysroot /nosuch")
    gdb.run("uffd kill")
    assert '"/nosuch"' in gdb.run("show sysroot")


def test_solib_search_path(gdb, moved):
    gdb.run(f"set solib-search-path /nosuch:{moved.place}")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core} {moved.place / 'zoo'}"))


def test_debug_file_directory(gdb, moved, tmp_path):
    gdb.run(f"set debug-file-directory {moved.by_build_id(tmp_path / 'debug')}")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    gdb.run("uffd kill")
    assert re.search(r'is "(target:)?"\.$', gdb.run("show sysroot").strip())  # gdb's own


@pytest.fixture
def server(moved) -> Iterator[Tuple[str, List[str]]]:
    """A debuginfod server's URL, and the paths that it is asked for."""
    asked: List[str] = []
    files = {f"/buildid/{build_id(p)}/executable": p for p in moved.place.iterdir()}

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = files[self.path].read_bytes() if self.path in files else b""
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}", asked
    made.shutdown()
    made.server_close()
    thread.join(20)


@pytest.mark.every_gdb
def test_debuginfod(start_gdb, moved, server, tmp_path):
    url, asked = server
    gdb = start_gdb(env={"DEBUGINFOD_URLS": url})
    if "not compiled" in gdb.run("set debuginfod enabled on"):
        pytest.skip("this gdb has no debuginfod")
    text = gdb.run(f"uffd spawn {moved.core}", timeout=60)
    is_whole(gdb, text)
    assert f"downloading libtlslib.so from {url}" in text, text
    assert any(path.endswith("/executable") for path in asked)
    gdb.run("uffd kill")
    gdb.run("set debuginfod enabled off")
    shutil.rmtree(tmp_path / "home" / ".cache", ignore_errors=True)
    asked.clear()
    assert "libtlslib.so: no such file" in " ".join(gdb.run(f"uffd spawn {moved.core}").split())
    assert asked == []


QUESTION = "Enable debuginfod for this session? (y or [n]) "


@pytest.mark.every_gdb
def test_debuginfod_asks_first(start_gdb, moved, server):
    """As gdb does, with its default `ask`; where nobody can answer, or who was asked said no, the
    warning tells what is missing."""
    url, asked = server
    gdb = start_gdb(env={"DEBUGINFOD_URLS": url})
    if "not compiled" in gdb.run("set debuginfod enabled ask"):
        pytest.skip("this gdb has no debuginfod")
    missing = "libtlslib.so: no such file"
    assert missing in " ".join(gdb.run(f"uffd spawn {moved.core}").split())  # confirm is off
    gdb.run("set confirm on")
    gdb.run("set debuginfod enabled ask")  # a gdb that put its own question took that for a no
    gdb.send(f"uffd spawn {moved.core}")
    gdb.child.expect_exact(QUESTION)
    said = gdb.child.before
    assert url in said and "libtlslib.so" in said and "files are not here" in said, said
    gdb.child.sendintr()
    gdb.wait()
    assert '"ask"' in gdb.run("show debuginfod enabled")
    gdb.send(f"uffd spawn {moved.core}")
    gdb.child.expect_exact(QUESTION)
    gdb.send("perhaps")
    gdb.child.expect_exact(QUESTION)
    gdb.send("")
    assert missing in " ".join(gdb.wait().split())
    assert '"off"' in gdb.run("show debuginfod enabled") and asked == []
    gdb.run("set debuginfod enabled ask")
    gdb.send(f"uffd spawn {moved.core}")
    gdb.child.expect_exact(QUESTION)
    gdb.send("y")
    text = gdb.wait(60)
    is_whole(gdb, text)
    assert f"downloading libtlslib.so from {url}" in text, text
    assert '"on"' in gdb.run("show debuginfod enabled")


def test_two_cores_one_after_the_other(gdb, moved, all_cores, tmp_path):
    """The links of the first are not what the second is looked up with."""
    gdb.run(f"set debug-file-directory {moved.by_build_id(tmp_path / 'debug')}")
    gdb.run(f"uffd spawn {moved.core}")
    spawned = gdb.run(f"uffd spawn {all_cores.sample()}")
    assert "lookup (value=99)" in spawned, spawned
    assert gdb.value("push(7)") == "1042"
    assert "libc.so.6" in gdb.run("info sharedlibrary")


# -- set uffd files-from ----------------------------------------------------------------------


def test_files_from_folders(gdb, moved, tmp_path):
    """A root, and the same files in a heap; relative paths are gdb's."""
    assert "no such file or folder" in gdb.run(f"set uffd files-from {tmp_path}/nosuch")
    gdb.run(f"cd {moved.root.parent}")
    gdb.run("set uffd files-from root")
    assert f'"{moved.root}"' in gdb.run("show uffd files-from")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    heap = tmp_path / "heap"
    heap.mkdir()
    for number, name in enumerate(NAMES):
        shutil.copy2(moved.place / name, heap / f"{number}.so")
    gdb.run(f"set uffd files-from {tmp_path}/:{heap}")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    gdb.run("set uffd files-from")
    text = " ".join(gdb.run(f"uffd spawn {moved.core}").split())
    assert "libtlslib.so: no such file" in text and "files-from" in text, text


def test_files_from_an_image(gdb, moved, tmp_path):
    """Stripped files, their debug files by build-id beside them: gdb has lines, and when it ends
    nothing is left of what was taken out of the image."""
    root = tmp_path / "image"
    for name in NAMES:
        target = root / str(moved.home / name).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = build_id(moved.place / name)
        debug = root / "usr/lib/debug/.build-id" / text[:2] / f"{text[2:]}.debug"
        debug.parent.mkdir(parents=True, exist_ok=True)
        source = moved.place / name
        subprocess.run(["objcopy", "--only-keep-debug", source, debug], check=True)
        subprocess.run(["objcopy", "--strip-all", source, target], check=True)
        shutil.copystat(source, target)
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        archive.add(root, ".")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"Layers": ["layer.tar"]}]))
    with tarfile.open(tmp_path / "saved.tar", "w") as archive:
        for path in (manifest, layer):
            archive.add(path, path.name)
    before = gdb.run("show debug-file-directory")
    gdb.run(f"set uffd files-from {tmp_path}/saved.tar")
    is_whole(gdb, gdb.run(f"uffd spawn {moved.core}"))
    places = re.findall(r"[^\s`'\"]*(?=/saved\.tar/)", gdb.run("info files"))
    scratch = {Path(place) for place in places if place}
    assert scratch and all(place.is_dir() for place in scratch), scratch
    gdb.run("uffd kill")
    assert not any(place.exists() for place in scratch)
    assert gdb.run("show debug-file-directory") == before


# -- gdb-uffd pack ----------------------------------------------------------------------------


def test_a_packed_core(gdb, moved, tmp_path, capsys):
    """Opened with none of the files there, by a name with a blank in it."""
    target = tmp_path / "from there.uffd.zst"
    arguments = ["pack", str(moved.core), "-o", str(target), "--files-from", str(moved.root)]
    assert cli.main(arguments) == 0
    assert "missing" not in capsys.readouterr().out
    is_whole(gdb, gdb.run(f"uffd spawn '{target}'"))
    assert str(target) in gdb.run("uffd info")
    assert gdb.call("bump_tls()")["dirty"]
    text = gdb.run("uffd kill")
    assert str(target) in text and "BFD" not in text, text
    assert "gdb-uffd-" not in gdb.run("info inferiors")  # the executable went with the server
    gdb.run("set sysroot /")
    assert "unavailable" in gdb.run(f"uffd spawn {moved.core}")


def test_doctor_of_a_core(gdb, moved):
    text = " ".join(gdb.run(f"uffd doctor {moved.core}").split())
    assert f"FAIL {moved.home}/libtlslib.so: missing; needed: build-id" in text, text
    assert "set uffd files-from PATH" in text and f"gdb-uffd pack --debug {moved.core}" in text
    gdb.run(f"set uffd files-from {moved.root}")
    text = gdb.run(f"uffd doctor {moved.core}")
    assert "FAIL" not in text and f"libtlslib.so: found at {moved.place}" in text, text
    data = json.loads(gdb.run(f"uffd doctor -json {moved.core}").strip())
    assert data["whole"] and data["gdb"]["version"]
    states = {file["path"]: file["state"] for file in data["files"]}
    assert states[f"{moved.home}/libtlslib.so"] == "found", states
    assert "no such file" in gdb.run("uffd doctor /nosuch")
