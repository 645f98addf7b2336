"""Names that a core chose make no automounter ask, nor do those that gdb is told."""

from __future__ import annotations

import os
import time
from contextlib import closing

import pytest
from harness.automount import automounted, in_own_namespace
from server_fakes import serving
from trace_cores import PAGE, Load, auxv, nt_file, prpsinfo, simple

import gdb_uffd.trace
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.trace.files import automount
from gdb_uffd.trace.files.search import FileSearch


def _moment() -> None:
    """What was mounted since is known after it (the list of mounts is read once a second)."""
    automount._types.cache_clear()


def _core(path, names):
    ranges = [(0x400000 + n * 0x10000, 0x401000 + n * 0x10000, 0, name)
              for n, name in enumerate(names)]  # fmt: skip
    notes = prpsinfo(77, b"it") + auxv((9, 0x400000)) + nt_file(ranges)
    path.write_bytes(simple(notes, [Load(0x10000, b"x" * PAGE)]))
    os.utime(path, (time.time() + 9, time.time() + 9))
    return path


WAYS = ("net/NAME/app", "link/lib.so", "net/NAME (deleted)", "folder/NAME/lib.so", "net/../net/N/x")


@pytest.mark.parametrize("kind", ["indirect", "direct"])
def test_a_cores_names_are_not_asked_for(tmp_path, kind):
    def run() -> None:
        net = tmp_path / "net"
        (tmp_path / "link").symlink_to(net / "OTHER")
        (tmp_path / "folder").symlink_to(net)
        core = _core(tmp_path / "core", [f"{tmp_path}/{way}" for way in WAYS])
        with automounted(net, kind) as mount:
            _moment()
            for search in (FileSearch(), FileSearch(files_from=(str(tmp_path),)),
                           FileSearch(sysroot="/"),
                           FileSearch(files_from=(f"/proc/{os.getpid()}/root",)),
                           FileSearch(libraries=(str(tmp_path),))):  # fmt: skip
                with closing(gdb_uffd.trace.open(str(core), None, search)) as trace:
                    with closing(trace.snapshot(0)) as snapshot:
                        lines = "\n".join(snapshot.warnings)
                        assert "behind an automounter" in lines
                    # gdb is led elsewhere: below a folder in which there is no such name.
                    assert trace.sysroot or search.sysroot
                assert mount.asked == []

    in_own_namespace(run)


@pytest.mark.parametrize("kind", ["indirect", "direct"])
def test_what_is_mounted_is_a_file_as_any(tmp_path, kind):
    def run() -> None:
        net = tmp_path / "a net"
        with automounted(net, kind) as mount:
            place = net / "host/export" if kind == "indirect" else net
            mount.mount(place, "content")
            _moment()
            assert automount.is_file(f"{place}/it") and automount.is_there(f"{place}/it")
            assert not automount.is_there(f"{place}/none") and automount.may_look(f"{place}/none")
            assert mount.asked == []

    in_own_namespace(run)


@pytest.mark.parametrize(
    "way",
    [
        "/proc/self/cwd",
        "/proc/self/root",
        "/proc/{}/root",
        "/proc/self/fd/{1}",
        "/proc/self/task/{}/root",
    ],
)
def test_ways_around(tmp_path, way):
    def run() -> None:
        with automounted(tmp_path / "net") as mount:
            _moment()
            os.chdir(tmp_path)
            here = way.format(os.getpid(), os.open(tmp_path, os.O_PATH))
            path = f"{here}/net/N/x" if "cwd" in way or "fd" in way else f"{here}{tmp_path}/net/N/x"
            assert not automount.is_file(path) and not automount.is_there(path)
            assert not automount.may_look(path)
            assert not automount.may_look("net/N")
            assert mount.asked == []

    in_own_namespace(run)


def test_other_names_are_looked_at(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    for name in ("loop", "file", "file/below", "link", "none", "n" * 300, "../x", "nul\0"):
        assert automount.may_look(f"{tmp_path}/{name}")
    assert automount.may_look("/proc/self/exe") and automount.may_look("/")


def test_gdbs_questions_do_not_ask(tmp_path):
    """Host I/O; the server's own /proc/PID/maps has its own test, with gdb."""

    def run() -> None:
        with automounted(tmp_path / "net") as mount, serving() as client:
            _moment()
            named = f"{tmp_path}/net/NAME/app".encode().hex()
            for packet in (f"open:{named},0,0", f"stat:{named}", f"readlink:{named}"):
                assert client.ask(f"vFile:{packet}".encode()) == b"F-1,d"  # EACCES
            assert mount.asked == []

    in_own_namespace(run)


def test_links_in_what_was_sent_are_not_followed_there(tmp_path):
    """A trace's folder, a package, an image may hold links to anywhere."""
    trace, image = tmp_path / "t.uffd", tmp_path / "image"
    for folder in (trace, image / "blobs/sha256"):
        folder.mkdir(parents=True)

    def run() -> None:
        from gdb_uffd.trace.source import INDEX

        with automounted(tmp_path / "net") as mount:
            _moment()
            for name in (trace / INDEX, image / "usr", image / "oci-layout", image / "lib.so"):
                name.symlink_to(tmp_path / "net/NAME")
            with pytest.raises(UffdError, match="behind an automounter"):
                gdb_uffd.trace.open(str(trace))
            core = _core(tmp_path / "core", ["/usr/lib.so", "/blobs/lib.so"])
            with closing(
                gdb_uffd.trace.open(str(core), None, FileSearch(files_from=(str(image),)))
            ):
                assert mount.asked == []

    in_own_namespace(run)


def test_a_path_as_deep_as_paths_can_be(monkeypatch):
    """The types of file systems are looked up a few times for each directory, however deep."""
    looks = []
    types = {"": "ext4", "/proc": "proc"}

    class Counted(dict):
        def __contains__(self, place):
            looks.append(place)
            return super().__contains__(place)

    monkeypatch.setattr(automount, "dict", Counted, raising=False)
    monkeypatch.setattr(automount, "_types", lambda *_: types)
    assert automount.may_look("/a" * 2000)
    assert 2000 < len(looks) < 3 * 2000
    looks.clear()
    assert automount.may_look("/a" * 500_000) and not looks  # ENAMETOOLONG
