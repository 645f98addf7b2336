"""Where a server listens, and whom it lets in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import List, Optional

import pytest

from gdb_uffd import cli
from gdb_uffd.cli import serve
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen import addresses
from gdb_uffd.server.listen.addresses import Port, TcpEndpoint
from gdb_uffd.server.listen.endpoint import Endpoint
from gdb_uffd.server.stub.framing import frame

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    "text, meant",
    [
        ("unix:/tmp/x", "/tmp/x"),
        ("127.0.0.1:4711", Port("127.0.0.1", 4711)),
        ("localhost:0", Port("localhost", 0)),
        ("[::1]:65535", Port("::1", 65535)),
    ],
)
def test_addresses(text, meant) -> None:
    assert addresses.parse(text) == meant


def test_a_relative_socket_is_the_current_folder_s(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses.parse("unix:rsp") == str(tmp_path / "rsp")


@pytest.mark.parametrize(
    "text",
    ["", "x", "unix:", ":1", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "::1:5",
     "[::1]", "a/b:3", "1.2.3.4:-1"],
)  # fmt: skip
def test_what_is_no_address(text) -> None:
    with pytest.raises(UffdError, match="give unix:PATH"):
        addresses.parse(text)


def test_tokens() -> None:
    tokens = {addresses.check_token(addresses.new_token()) for _ in range(20)}
    assert len(tokens) == 20
    for bad in ("", "short", "x" * 300, "with blank 01234567", "hash#0123456789ab"):
        with pytest.raises(UffdError, match="a token is"):
            addresses.check_token(bad)


class Door:
    """A listening endpoint that accepts in a thread."""

    def __init__(self, where: Port, token: str = "") -> None:
        self.endpoint = TcpEndpoint(where, token)
        host, _, port = self.endpoint.path.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.accepted: Optional[socket.socket] = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        self.accepted = self.endpoint.accept(None, 20)

    def connect(self) -> socket.socket:
        made = socket.create_connection(self.address, 20)
        made.settimeout(20)
        return made

    def entered(self) -> Optional[socket.socket]:
        self._thread.join(25)
        assert not self._thread.is_alive()
        self.endpoint.close()
        return self.accepted


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_takes_the_same_user(host) -> None:
    try:
        door = Door(Port(host, 0))
    except UffdError as none:
        pytest.skip(str(none))
    with door.connect() as client:
        inside = door.entered()
        assert inside is not None
        with inside:
            client.sendall(b"x")
            assert inside.recv(5) == b"x"


def test_loopback_refuses_another_user(capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    door = Door(Port("127.0.0.1", 0))
    knock = (
        "import encodings.idna,os,socket,sys; os.setuid(65534); "
        "s=socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20); s.settimeout(20); "
        "sys.exit(0 if s.recv(1) == b'' else 1)"
    )
    command = [sys.executable, "-c", knock, str(door.address[1])]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0
    with door.connect():
        inside = door.entered()
        assert inside is not None
        inside.close()
    assert "refused 127.0.0.1" in capfd.readouterr().err


LEAVES_AT_ONCE = (
    "import encodings.idna,os,socket,sys; os.setuid(65534); "
    "s=socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20); s.sendall(b'$?#3f')"
)


def test_loopback_refuses_who_has_left_already(capfd: pytest.CaptureFixture[str]) -> None:
    """The kernel's table shows such a connection as user 0's, and what it sent is there."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    endpoint = TcpEndpoint(Port("127.0.0.1", 0))
    port = endpoint.path.rpartition(":")[2]
    subprocess.run([sys.executable, "-c", LEAVES_AT_ONCE, port], check=True)
    try:
        assert endpoint.accept(None, 0.5) is None
    finally:
        endpoint.close()
    assert "refused 127.0.0.1" in capfd.readouterr().err


def test_loopback_takes_a_client_of_both_families() -> None:
    door = Door(Port("127.0.0.1", 0))
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", door.address[1]))
        inside = door.entered()
        assert inside is not None
        inside.close()


def test_loopback_with_a_token_wants_it() -> None:
    door = Door(Port("127.0.0.1", 0), TOKEN)
    with door.connect() as client, pytest.raises(UffdError, match="refused"):
        addresses.give_token(client, "e" * 16)
    with door.connect() as client:
        addresses.give_token(client, TOKEN)
        inside = door.entered()
        assert inside is not None
        inside.close()


def test_silent_ones_keep_nobody_out(capfd: pytest.CaptureFixture[str]) -> None:
    door = Door(Port("0.0.0.0", 0), TOKEN)
    silent = [door.connect() for _ in range(addresses._PENDING_MAX + 2)]
    with door.connect() as client:
        addresses.give_token(client, TOKEN)
        inside = door.entered()
        assert inside is not None
        inside.close()
    assert all(each.recv(1) == b"" for each in silent)
    for each in silent:
        each.close()
    assert "others came" in capfd.readouterr().err


def test_other_addresses_need_a_token() -> None:
    with pytest.raises(UffdError, match="--expose"):
        TcpEndpoint(Port("0.0.0.0", 0))


def refusals() -> List[bytes]:
    wrong = addresses.token_packet("f" * 16)
    bad_sum = addresses.token_packet(TOKEN)[:-2] + b"zz"
    return [frame(b"qSupported"), frame(b"vMustReplyEmpty"), wrong, bad_sum, b"x" * 5000, b"#00"]


def test_the_token_comes_first(capfd: pytest.CaptureFixture[str]) -> None:
    door = Door(Port("0.0.0.0", 0), TOKEN)
    for sent in refusals():
        with door.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while more := client.recv(4096):
                    answer += more
            except ConnectionError:
                pass  # what it had not read was thrown away
            assert b"$OK#" not in answer, sent
    with door.connect() as client:
        addresses.give_token(client, TOKEN)
        client.sendall(b"$?#3f")
        inside = door.entered()
        assert inside is not None
        with inside:
            assert inside.recv(9) == b"$?#3f"
    assert capfd.readouterr().err.count("refused") == len(refusals())


def test_who_says_nothing_does_not_stay(monkeypatch) -> None:
    monkeypatch.setattr(addresses, "TOKEN_SECONDS", 0.05)
    door = Door(Port("0.0.0.0", 0), TOKEN)
    with door.connect() as silent:
        assert silent.recv(1) == b""
    with door.connect() as client:
        monkeypatch.setattr(addresses, "TOKEN_SECONDS", 20)
        addresses.give_token(client, TOKEN)
        inside = door.entered()
        assert inside is not None
        inside.close()


def test_a_refused_token_is_told_to_the_client() -> None:
    door = Door(Port("0.0.0.0", 0), TOKEN)
    with door.connect() as client, pytest.raises(UffdError, match="refused"):
        addresses.give_token(client, "e" * 16)
    with door.connect() as client:
        addresses.give_token(client, TOKEN)
        inside = door.entered()
        assert inside is not None
        inside.close()


def test_bytes_are_passed_on_both_ways() -> None:
    server, far = socket.socketpair()
    ours, client = socket.socketpair()
    thread = threading.Thread(target=addresses.relay, args=(far, ours.fileno(), ours.fileno()))
    thread.start()
    try:
        client.sendall(b"to the server")
        assert server.recv(100) == b"to the server"
        server.sendall(b"back" * 1000)
        assert client.recv(4000, socket.MSG_WAITALL) == b"back" * 1000
    finally:
        server.close()
        thread.join(20)
        for each in (far, ours, client):
            each.close()
    assert not thread.is_alive()


def test_connecting_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(UffdError, match="cannot connect"):
        addresses.connect(str(tmp_path / "none"))


def test_a_unix_listener_is_the_old_endpoint(tmp_path: Path) -> None:
    made = addresses.open_listener(str(tmp_path / "s"))
    assert isinstance(made, Endpoint) and made.path == str(tmp_path / "s")
    made.close()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["serve", "x", "--listen", "nonsense"], "not an address"),
        (["serve", "x", "--expose"], "--listen HOST:PORT"),
        (["serve", "x", "--expose", "--listen", "unix:y"], "--listen HOST:PORT"),
        (["serve", "x", "--expose", "--listen", "0.0.0.0:0", "--token-file", "/none"], "/none"),
        (["serve", "x", "--listen", "127.0.0.1:0", "--token-file", "/none"], "/none"),
        (["serve", "/none"], "gdb-uffd serve TRACE"),
        (["connect", "127.0.0.1:1"], "no token"),
        (["connect", "127.0.0.1:1", "--token-file", "/none"], "/none"),
    ],
)
def test_wrong_usage_is_one_line(arguments, said, monkeypatch, capsys) -> None:
    monkeypatch.delenv("GDB_UFFD_TOKEN", raising=False)
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gdb-uffd: ") and said in line


def test_a_token_that_others_can_read_and_folders_that_are_not_there(tmp_path, capsys) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    options = [
        "--token-file",
        str(token),
        "--sysroot",
        "/none/root",
        "--debug-directory",
        "/none/d",
    ]
    assert cli.main(["serve", "/none", "--listen", "127.0.0.1:0", *options]) == 1
    said = capsys.readouterr().err
    assert f"warning: {token}: others may read it" in said
    assert "--sysroot /none/root: no such directory" in said and "--debug-directory /none/d" in said


def test_the_place_of_a_dead_socket_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    made = Endpoint(path)
    with pytest.raises(UffdError, match="in use"):
        Endpoint(path)  # somebody listens there
    made.close()
    (tmp_path / "s").write_text("a file")
    with pytest.raises(UffdError, match="in use"):
        Endpoint(path)
    assert (tmp_path / "s").read_text() == "a file"


def test_how_others_name_it() -> None:
    assert serve._reachable("0.0.0.0:5") == (f"{socket.gethostname()}:5", True)
    assert serve._reachable("[::]:5") == (f"{socket.gethostname()}:5", True)
    assert serve._reachable("127.0.0.1:5") == ("127.0.0.1:5", False)
    assert serve._reachable("[::1]:5") == ("[::1]:5", False)
