"""The server as a process: its first line, its socket, and that it goes when it should."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from server_fakes import RawClient

from gdb_uffd.client.session.wire import SERVER_GONE
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen.endpoint import Endpoint
from gdb_uffd.server.stub.framing import frame

ROOT = Path(__file__).resolve().parents[2]

FAKE = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "lib")!r}]
import select
import server_fakes
from gdb_uffd.replay.interface import Stop
from gdb_uffd.server import __main__
from gdb_uffd.server.listen import serve

def run(action, client):
    client.output(b"running")
    while True:
        select.select([client.fileno()], [], [])
        if client.interrupt_requested():
            return Stop(action.tid, 2)

class Diversion(server_fakes.FakeDiversion):
    def close(self):
        super().close()
        print("closed", flush=True)

serve.open_trace = lambda core, executable, search: server_fakes.FakeTrace(
    [server_fakes.FakeSnapshot()], path=core)
serve.Diversion = lambda snapshot: Diversion(snapshot, run)
sys.exit(__main__.main())
"""


class Server:
    """A server in a process of its own, over the fake diversion."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rsp"
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKE, "--socket", str(self.path), "--core", "/x/core"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.ready: Dict[str, Any] = json.loads(self.process.stdout.readline())

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(self.path))
        return sock

    def ended(self) -> int:
        """Wait for its end; the exit code.  Its log must be empty and its socket gone."""
        out, err = self.process.communicate()
        assert not self.path.exists()
        assert err == b""
        assert b"closed" in out
        return self.process.returncode


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    for pipe in (started.process.stdin, started.process.stdout, started.process.stderr):
        if pipe is not None:
            pipe.close()


def test_the_ready_line(server: Server) -> None:
    ready = server.ready
    assert ready["ready"] is True and ready["protocol"] == 2
    assert ready["pid"] == server.process.pid and ready["socket"] == str(server.path)
    assert ready["core"] == "/x/core" and ready["executable"] == "/usr/bin/fake"
    assert ready["threads"] == 3 and ready["total_pages"] == 3 and ready["signal"] == 11
    assert ready["inferior_pid"] == 0x1234 and ready["warnings"] == []
    assert ready["open_ms"] >= 0
    mode = os.stat(server.path).st_mode
    assert stat.S_ISSOCK(mode) and mode & 0o777 == 0o600


def test_it_ends_with_its_connection(server: Server) -> None:
    sock = server.connect()
    assert RawClient(sock, None).ask(b"qAttached") == b"1"  # type: ignore[arg-type]
    sock.close()
    assert server.ended() == 0


def test_it_ends_with_its_parent_before_a_connection(server: Server) -> None:
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.stdin = None
    assert server.ended() == 0


def test_after_the_connection_its_stdin_does_not_matter(server: Server) -> None:
    with server.connect() as sock:
        client = RawClient(sock, None)  # type: ignore[arg-type]
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        assert client.ask(b"qAttached") == b"1"
    assert server.ended() == 0


def test_the_folder_of_its_socket_goes_with_it(tmp_path: Path) -> None:
    """Where gdb was killed before it could remove it."""
    (tmp_path / "made").mkdir()
    server = Server(tmp_path / "made")
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.stdin = None
    assert server.ended() == 0
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["waiting", "idle", "running"])
def test_it_ends_by_a_signal(server: Server, number: int, when: str) -> None:
    if when != "waiting":
        sock = server.connect()
        client = RawClient(sock, None)  # type: ignore[arg-type]
        if when == "running":
            client.send(b"vCont;c")
            assert sock.recv(100).startswith(b"$O")
    server.process.send_signal(number)
    assert server.ended() == 0
    if when != "waiting":
        sock.close()


def test_ctrl_c_is_not_for_it(server: Server) -> None:
    with server.connect() as sock:
        client = RawClient(sock, None)  # type: ignore[arg-type]
        server.process.send_signal(signal.SIGINT)
        assert client.ask(b"qAttached") == b"1"
    assert server.ended() == 0


def test_its_death_is_told(server: Server) -> None:
    """Whoever holds the connection answers what it had not, and whatever comes then."""
    with server.connect() as sock:
        client = RawClient(sock, None)  # type: ignore[arg-type]
        registers = client.ask(b"g") or b""
        client.send(b"vCont;c:p1234.-1")
        assert sock.recv(100).startswith(b"$O")
        server.process.kill()
        assert client.receive() == b"X09;process:1234"
        assert client.ask(b"g") == b"x" * len(registers)
        assert client.ask(b"G" + registers) == b"OK"
        assert client.ask(b"m600000,8") == b"E01"
        assert client.ask(b"qXfer:threads:read::0,1000") == b"E01"
        assert client.ask(b"quffd.info") == SERVER_GONE
        assert client.ask(b"vKill;1234") == b"OK"
        assert server.process.wait(20) == -signal.SIGKILL
    server.path.unlink()


def test_its_death_while_packets_are_acknowledged(server: Server) -> None:
    """A client that gets an answer and no acknowledgement sends its packet again (gdb manual,
    "Packet Acknowledgment"), and throws the answer away."""
    with server.connect() as sock:
        for packet, answer in ((b"qAttached", b"1"), (b"qSupported", b"E01"), (b"?", b"X09")):
            sock.sendall(frame(packet))
            data, expected = b"", b"+" + frame(answer)
            while len(data) < len(expected):
                data += sock.recv(100)
            assert data == expected
            sock.sendall(b"+")
            server.process.kill()
            server.process.wait(20)
    server.path.unlink()


def test_its_death_between_two_packets(server: Server) -> None:
    """There nothing is said until the client asks."""
    with server.connect() as sock:
        client = RawClient(sock, None)  # type: ignore[arg-type]
        assert client.ask(b"qAttached") == b"1"
        server.process.kill()
        server.process.wait(20)
        assert client.ask(b"vCont?") == b"vCont;c;C;s;S"
        assert client.ask(b"m600000,8") == b"E01"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    server.path.unlink()


def test_the_client_dies_while_it_runs(server: Server) -> None:
    with server.connect() as sock:
        RawClient(sock, None).send(b"vCont;c")  # type: ignore[arg-type]
        assert sock.recv(100).startswith(b"$O")
    assert server.ended() == 0


def start(arguments: List[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gdb_uffd.server", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda p: None,
        lambda p: p.mkdir(),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"\x7fELF" + bytes(100)),
        lambda p: p.write_text("not a core\n"),
        lambda p: os.mkfifo(p),
    ],
    ids=["missing", "folder", "empty", "zeros", "text", "pipe"],
)
def test_a_bad_core_is_one_line(tmp_path: Path, make: Any) -> None:
    core = tmp_path / "core"
    make(core)
    done = start(["--socket", str(tmp_path / "rsp"), "--core", str(core)])
    assert done.returncode == 2
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert said["ready"] is False and str(core) in said["error"]
    assert "internal" not in said["error"]
    assert not (tmp_path / "rsp").exists()


def test_nobody_reads_the_ready_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", FAKE, "--socket", str(tmp_path / "rsp"), "--core", "/x/core"],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""
    assert not (tmp_path / "rsp").exists()


def test_a_socket_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UffdError, match="at most 107 bytes"):
        Endpoint(str(tmp_path / ("x" * 120)))
    with pytest.raises(UffdError, match="cannot make the socket"):
        Endpoint(str(tmp_path / "none" / "rsp"))
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(UffdError, match="cannot make the socket"):
        Endpoint(str(taken))
    assert taken.read_text() == "precious"


def test_nobody_connects(tmp_path: Path) -> None:
    endpoint = Endpoint(str(tmp_path / "rsp"))
    assert endpoint.accept(None, 0.0) is None
    endpoint.close()
    endpoint.close()
    assert not (tmp_path / "rsp").exists()
