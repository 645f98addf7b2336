"""Mapped files that are not where they were: below a sysroot, by build-id, from debuginfod."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import pytest
from trace_cores import Told, below, build_library, kernel_told, relocated

from gdb_uffd.client.show.progress import progress_text
from gdb_uffd.protocol.messages import Progress
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.core.elf import ElfImage
from gdb_uffd.trace.files import debuginfod, search
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.opening import open_trace


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return kernel_told(tmp_path_factory.mktemp("original"))


@pytest.fixture
def moved(original: Told, tmp_path: Path) -> Iterator[Told]:
    """The core; its program and library are only below tmp_path/root."""
    with relocated(original, tmp_path / "root"):
        yield original


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))


def build_id(path: Path) -> str:
    return ElfImage.from_file(path.read_bytes()).build_id().hex()  # type: ignore[arg-type]


def by_id(folder: Path, path: Path, name: str = "") -> Path:
    """A link in `folder`/.build-id, as debug packages have them."""
    text = name or build_id(path)
    link = folder / ".build-id" / text[:2] / text[2:]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path)
    return link


def whole(snapshot: CoreSnapshot, told: Told) -> None:
    """Nothing is missing, and code of the library that is in no core can be read."""
    try:
        assert snapshot.warnings == []
        assert snapshot.read(told.one("libtext"), 4) != bytes(4)
        assert all(not m.unavailable for m in snapshot.mappings if m.name.startswith("/"))
        library = {m.name for m in snapshot.mappings if "libtold" in m.name}
        assert library == {str(told.library)}
    finally:
        snapshot.close()


def lacks_its_library(snapshot: CoreSnapshot, told: Told) -> str:
    try:
        with pytest.raises(MemoryUnavailable):
            snapshot.read(told.one("libtext"), 4)
        return "\n".join(snapshot.warnings)
    finally:
        snapshot.close()


def test_nowhere(moved: Told) -> None:
    told = lacks_its_library(open_core(str(moved.core)), moved)
    assert "`set sysroot`" in told and build_id(moved.library.with_suffix(".away")) in told


def test_below_a_sysroot(moved: Told, tmp_path: Path) -> None:
    """The libraries that it does not hold are those of this machine."""
    snapshot = open_core(str(moved.core), None, FileSearch(str(tmp_path / "root")))
    assert snapshot.executable == str(below(tmp_path / "root", moved.program))
    whole(snapshot, moved)


@pytest.mark.parametrize("beside", [True, False])
def test_in_a_folder_of_libraries(moved: Told, tmp_path: Path, beside: bool) -> None:
    """As gdb's solib-search-path: by its whole path below the folder, or by its name alone."""
    assert moved.library is not None
    folder = below(tmp_path / "root", moved.library).parent if beside else tmp_path / "root"
    wanted = FileSearch(libraries=("/nosuch", str(folder)))
    program = str(below(tmp_path / "root", moved.program))
    whole(open_core(str(moved.core), program, wanted), moved)


def test_what_lies_below_a_sysroot_is_checked(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    other = tmp_path / "other"
    other.mkdir()
    wrong = build_library(other, 2)
    below(tmp_path / "root", moved.library).write_bytes(wrong.read_bytes())
    told = lacks_its_library(
        open_core(str(moved.core), None, FileSearch(str(tmp_path / "root"))), moved
    )
    assert "the core was made with build-id" in told and str(tmp_path / "root") in told


def test_by_build_id(moved: Told, tmp_path: Path) -> None:
    for path in (moved.library, moved.program):
        assert path is not None
        by_id(tmp_path / "debug", below(tmp_path / "root", path))
    whole(open_core(str(moved.core), None, FileSearch("", (str(tmp_path / "debug"),))), moved)


def test_by_build_id_below_a_sysroot(moved: Told, tmp_path: Path) -> None:
    debug = tmp_path / "sys" / "usr" / "lib" / "debug"
    for path in (moved.library, moved.program):
        assert path is not None
        by_id(debug, below(tmp_path / "root", path))
    whole(open_core(str(moved.core), None, FileSearch(str(tmp_path / "sys"))), moved)


def test_a_wrong_file_under_a_build_id_does_not_serve(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    right = build_id(moved.library.with_suffix(".away"))
    by_id(tmp_path / "debug", below(tmp_path / "root", moved.program), right)
    wanted = FileSearch("", (str(tmp_path / "debug"),))
    assert "has build-id" in lacks_its_library(open_core(str(moved.core), None, wanted), moved)


def test_another_build_at_the_path_gives_way_to_the_build_id(moved: Told, tmp_path: Path) -> None:
    """As after an upgrade of the library."""
    assert moved.library is not None
    build_library(moved.library.parent, 3)
    for path in (moved.library, moved.program):
        by_id(tmp_path / "debug", below(tmp_path / "root", path))
    whole(open_core(str(moved.core), None, FileSearch("", (str(tmp_path / "debug"),))), moved)


# -- what gdb is told -------------------------------------------------------------------------


def test_links_have_the_old_paths(moved: Told, tmp_path: Path) -> None:
    assert moved.library is not None
    trace = open_trace(str(moved.core), None, FileSearch(str(tmp_path / "root")))
    snapshot = trace.snapshot(0)
    root = Path(trace.sysroot)  # type: ignore[attr-defined]
    try:
        link = below(root, moved.library)
        assert link.resolve() == below(tmp_path / "root", moved.library)
        found = [str(p) for p in root.rglob("libc.so.6")]
        assert found and all(os.path.realpath(p) == os.path.realpath(p) for p in found)
        assert Path(found[0]).resolve().is_file()
    finally:
        snapshot.close()
        trace.close()
    assert not root.exists()


def test_no_links_where_all_is_in_place(original: Told) -> None:
    trace = open_trace(str(original.core), None, FileSearch())
    snapshot = trace.snapshot(0)
    assert trace.sysroot == ""  # type: ignore[attr-defined]
    snapshot.close()
    trace.close()


# -- debuginfod -------------------------------------------------------------------------------


class Files(http.server.BaseHTTPRequestHandler):
    """Answers what `offered` has; `asked` are the paths."""

    offered: Dict[str, bytes] = {}
    asked: List[str] = []

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        data = self.offered.get(self.path)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Files.offered, Files.asked = {}, []
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()
    thread.join(20)


def test_from_a_server_and_then_from_the_cache(moved: Told, tmp_path: Path, server: str) -> None:
    for path in (moved.library, moved.program):
        assert path is not None
        copy = below(tmp_path / "root", path)
        Files.offered[f"/buildid/{build_id(copy)}/executable"] = copy.read_bytes()
    wanted = FileSearch("", (), ("http://127.0.0.1:1", server))  # the first does not answer
    whole(open_core(str(moved.core), None, wanted), moved)
    assert len(Files.asked) == 2
    Files.offered = {}
    whole(open_core(str(moved.core), None, wanted), moved)
    assert len(Files.asked) == 2
    kept = sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert kept == ["executable", "executable"]


def test_what_no_server_has(moved: Told, tmp_path: Path, server: str) -> None:
    lacks_its_library(open_core(str(moved.core), None, FileSearch("", (), (server,))), moved)
    assert len(Files.asked) == 2 and not list((tmp_path / "cache").rglob("executable"))


def test_a_server_that_lies(moved: Told, tmp_path: Path, server: str) -> None:
    assert moved.library is not None
    name = build_id(moved.library.with_suffix(".away"))
    Files.offered[f"/buildid/{name}/executable"] = b"not what was asked for"
    told = lacks_its_library(open_core(str(moved.core), None, FileSearch("", (), (server,))), moved)
    assert "build-id" in told


def test_too_much_is_not_taken(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(debuginfod, "MAX_BYTES", 100)
    Files.offered["/buildid/aabb/executable"] = bytes(101)
    assert debuginfod.DebuginfodClient((server,)).get(b"\xaa\xbb") is None


class Slow:
    """A server that never sends more than the beginning of an answer, and then a byte at a time
    until it is stopped."""

    def __init__(self, beginning: bytes, drip: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = 0
        self._beginning, self._drip = beginning, drip
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._over.is_set():
                return
            self.asked += 1
            with client, contextlib.suppress(OSError):
                client.sendall(self._beginning)
                while not self._over.wait(0.02):
                    client.sendall(self._drip)

    def stop(self) -> None:
        self._over.set()
        with socket.create_connection(self._listener.getsockname()):
            self._thread.join(20)
        self._listener.close()


OK = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    ("beginning", "drip", "said"),
    [
        (b"", b"", "no answer|timed out"),
        (OK, b"X: y\r\n", "no answer|got more than"),
        (OK + b"Content-Length: 90000\r\n\r\n\x7fELF", b"x", "sent .* bytes in"),
        (OK + b"Content-Length: 90000\r\n\r\n", b"", "timed out"),
        (b"HTTP/1.0 500 No\r\n\r\n", b"x", "HTTP error 500"),
        (b"no http", b"\r\n", "."),
    ],
)
def test_a_server_has_little_time_and_is_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beginning: bytes, drip: bytes, said: str
) -> None:
    monkeypatch.setattr(debuginfod, "SECONDS", 0.2)
    slow = Slow(beginning, drip)
    told: List[str] = []
    client = debuginfod.DebuginfodClient((slow.url,), told.append)
    try:
        assert client.get(b"\xaa\xbb", "libx.so") is None
        assert client.get(b"\xaa\xcc") is None
    finally:
        slow.stop()
    assert slow.asked == 1
    (problem,) = client.problems
    assert problem.startswith(slow.url) and re.search(said, problem), problem
    assert Progress("asking", "libx.so", slow.url) in told and told[-1] is None
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_ctrl_c_ends_downloads_and_no_more(moved: Told, server: str) -> None:
    """The core opens without; in a process that ignores SIGINT, as the server does."""
    slow = Slow(OK + b"Content-Length: 90000\r\n\r\n", b"x" * 9000)

    def tell(now: Optional[Progress]) -> None:
        if now is not None and now.doing == "downloading":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        wanted = FileSearch("", (), (slow.url, server), tell=tell)
        lacks_its_library(open_core(str(moved.core), None, wanted), moved)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        slow.stop()
    assert slow.asked == 1 and Files.asked == []
    assert "Ctrl-C" in "".join(wanted.problems())


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(debuginfod, "_TOLD_EVERY", 0.0)
    Files.offered["/buildid/aabb/executable"] = b"\x7fELF" + bytes(3 << 20)
    told: List[Optional[Progress]] = []
    assert debuginfod.DebuginfodClient((server,), told.append).get(b"\xaa\xbb", "libx.so")
    size = 4 + (3 << 20)
    whole = Progress("downloading", "libx.so", server, size, size)
    assert whole in told and told[-1] is None
    assert progress_text(whole) == f"downloading libx.so from {server}: 3.0 of 3.0 MiB"
    assert progress_text(told[0]) == f"asking {server} for libx.so"


def test_the_cache_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", "/x")
    assert debuginfod.cache_folder() == "/x"
    monkeypatch.delenv("DEBUGINFOD_CACHE_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert debuginfod.cache_folder() == "/y/debuginfod_client"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/z")
    assert debuginfod.cache_folder() == "/home/z/.cache/debuginfod_client"


def test_servers() -> None:
    assert debuginfod.servers(" https://a/  http://b:80 file:///etc ftp://c nonsense") == (
        "https://a", "http://b:80",
    )  # fmt: skip


def test_no_build_id_finds_nothing(tmp_path: Path) -> None:
    assert list(FileSearch("", (str(tmp_path),)).by_build_id(b"")) == []
    assert list(search.FileSearch("", (str(tmp_path),)).by_build_id(b"\x01")) == []
