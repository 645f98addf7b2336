"""`uffd connect`: our commands on a server that `gdb-uffd serve` started."""

from __future__ import annotations

import os
import re
import socket
import threading
from typing import Iterator, List

import pytest
from harness.lldbs import Server

TOKEN = "0123456789abcdefg"
OTHER_MACHINE = (
    "echo 01234567-89ab-cdef-0123-456789abcdef > $0/boot_id && "
    "mount --bind $0/boot_id /proc/sys/kernel/random/boot_id && exec "
)


@pytest.fixture
def serve(all_cores) -> Iterator[object]:
    """Starts `gdb-uffd serve` of the sample's core, or another file, with these options."""
    started: List[Server] = []

    def start(*options: str, trace: str = "", before: "tuple[str, ...]" = ()) -> Server:
        started.append(Server([trace or str(all_cores.sample()), *options], before=before))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


def works(gdb) -> None:
    assert re.match(r'Line \d+ of ".*sample\.c"', gdb.run("info line push"))
    text = gdb.run("uffd call push(7)")
    assert "1042" in text and "counter 1041 → 1042" in text and "push () at" in text, text
    assert gdb.value("counter") == "1041"
    libraries = gdb.run("info sharedlibrary")
    assert "libc" in libraries and " No " not in libraries, libraries
    assert "worker" in gdb.run("thread apply 2 backtrace")
    assert gdb.value("tls_hits") == "1007"
    gdb.run("print push(8)")
    assert gdb.value("counter") == "1042"
    gdb.run("uffd reset")
    assert gdb.value("counter") == "1041"


def test_by_socket(gdb, serve, tmp_path):
    server = serve("--listen", f"unix:{tmp_path}/s")
    text = gdb.run(f"uffd connect unix:{tmp_path}/s")
    assert "lookup (value=99)" in text and "core: 3 threads" in text, text
    works(gdb)
    assert "target:" not in gdb.run("info sharedlibrary") + gdb.run("info inferiors")
    assert f"pid {server.process.pid}" in gdb.run("uffd info")
    gdb.run("uffd kill")
    assert server.process.wait(20) == 0
    assert "target:" in gdb.run("show sysroot")


def test_by_port_and_with_what_gdb_was_told_before(gdb, serve):
    server = serve("--listen", "127.0.0.1:0")
    gdb.run("set uffd engine compare")
    gdb.run("set uffd syscalls none")
    gdb.run(f"uffd connect {server.where}")
    text = gdb.run("uffd info")
    gdb.run("print push(7)")
    assert "engine       compare" in gdb.run("uffd info"), text
    gdb.run("uffd kill")
    assert server.process.wait(20) == 0


def test_with_a_token(start_gdb, serve, tmp_path):
    file = tmp_path / "to ken"
    file.write_text(TOKEN + "\n")
    gdb = start_gdb(env={"GDB_UFFD_TOKEN": "wrong-wrong-wrong"})
    server = serve("--listen", "0.0.0.0:0", "--expose", "--token-file", str(file))
    port = server.where.rpartition(":")[2]
    refused = gdb.run(f"uffd connect 127.0.0.1:{port}")
    assert "the server refused the token" in refused, refused
    gdb.run(f"uffd connect 127.0.0.1:{port} '{file}'")
    works(gdb)


def test_a_forgotten_token_is_guessed(gdb, serve, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    server = serve("--listen", "0.0.0.0:0", "--expose", "--token-file", str(file))
    text = gdb.run(f"uffd connect 127.0.0.1:{server.where.rpartition(':')[2]}", timeout=60)
    assert "GDB_UFFD_TOKEN" in text, text
    assert "no core is spawned" in gdb.run("uffd call 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which root may")
def test_on_another_machine(gdb, serve, tmp_path):
    """Its files come through the connection."""
    shell = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OTHER_MACHINE + '"$@"')
    server = serve(
        "--listen", f"unix:{tmp_path}/s", before=(*shell, str(tmp_path)),
    )  # fmt: skip
    gdb.run(f"uffd connect unix:{tmp_path}/s", timeout=60)
    works(gdb)
    assert "target:" in gdb.run("info sharedlibrary") + gdb.run("info inferiors")
    gdb.run("uffd kill")
    assert server.process.wait(20) == 0


def test_a_trace_of_many_snapshots(gdb, serve, trip, tmp_path):
    serve("--listen", f"unix:{tmp_path}/s", trace=str(trip.path))
    assert "trace: snapshot 0 of 0-6" in gdb.run(f"uffd connect unix:{tmp_path}/s")
    gdb.run("uffd goto end")
    assert gdb.value("$_uffd_snapshot") == "6"


def test_what_is_no_server_of_ours_goes_on(gdb, tmp_path):
    """gdb asks a stub that answers nothing; it is let go, not killed."""
    said: List[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        thread = threading.Thread(target=_stub, args=(listener, said))
        thread.start()
        text = gdb.run(f"uffd connect unix:{tmp_path}/s", timeout=60)
        assert "no uffd server" in text, text
        thread.join(20)
    assert not any(packet.startswith((b"k", b"vKill")) for packet in said)
    assert "no core is spawned" in gdb.run("uffd call 1")


def _stub(listener: socket.socket, said: List[bytes]) -> None:
    client, _ = listener.accept()
    with client, client.makefile("rb") as reader:
        while True:
            byte = reader.read(1)
            if not byte:
                return
            if byte != b"$":
                continue
            packet = b""
            while not packet.endswith(b"#"):
                packet += reader.read(1)
            reader.read(2)
            said.append(packet[:-1])
            answer = {b"?": b"S05", b"g": b"0" * 208, b"qAttached": b"1"}.get(packet[:-1], b"")
            client.sendall(b"+$" + answer + b"#%02x" % (sum(answer) % 256))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "usage: uffd connect"),
        ("a b c", "usage: uffd connect"),
        ("nonsense", "not an address"),
        ("host:99999999", "not an address"),
        ("127.0.0.1:70000", "not an address"),
        (
            "127.0.0.1:1",
            "could not connect to 127.0.0.1:1: connection refused; is `gdb-uffd serve`",
        ),
        ("unix:/nowhere/at/all", "could not connect: /nowhere/at/all: "),
        ("127.0.0.1:1 /nowhere/token", "token file /nowhere/token: no such file"),
    ],
)
def test_errors_are_one_line(gdb, arguments, told):
    sysroot = gdb.run("show sysroot")
    gdb.run("set tcp auto-retry off")
    gdb.run("set width 0")
    text = gdb.run(f"uffd connect {arguments}")
    assert gdb.run("show sysroot") == sysroot
    assert told in text and len(text.strip().splitlines()) == 1, text


def test_a_file_is_no_line_to_write_to(gdb, all_cores, tmp_path):
    """gdb would take it for a serial line; and the core that is open stays."""
    file = tmp_path / "precious"
    file.write_bytes(b"as it was")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    for address, said in ((f"unix:{file}", "not a socket"), ("unix:/no/such", "could not connect")):
        assert said in gdb.run(f"uffd connect {address}")
        assert file.read_bytes() == b"as it was"
        assert gdb.value("counter") == "1041"


def _answering(listener: socket.socket, answer: bytes) -> None:
    """Who connects is told that, and left."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            if answer:
                client.recv(100)
                client.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "connection refused; is `gdb-uffd serve` running there? Give the address"),
        (b"", "it closed the connection before it answered; if it wants a token, name its"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no uffd server"),
        (b"+$#00", "no uffd server"),
        (b"+$[1]#bd", "the server does not tell what it serves"),
    ],
)
def test_what_fails_leaves_what_is_open(gdb, all_cores, answer, told):
    """The session is as it was: what was kept, the frame, the thread."""
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.run("set tcp auto-retry off")
    gdb.run("set width 0")
    gdb.run("print push(7)")
    gdb.run("thread 2")
    gdb.run("up")
    before = gdb.run("frame") + gdb.run("info threads") + gdb.run("uffd dirty -all")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if answer is not None:
            listener.listen()
            threading.Thread(target=_answering, args=(listener, answer), daemon=True).start()
        text = gdb.run(f"uffd connect {address}")
        listener.shutdown(socket.SHUT_RDWR) if answer is not None else None
    assert told in text and text.count(address) == 1 and len(text.splitlines()) == 1, text
    assert gdb.run("frame") + gdb.run("info threads") + gdb.run("uffd dirty -all") == before
    assert gdb.value("counter") == "1042"


def test_another_core_can_be_connected_to_in_its_place(gdb, serve, all_cores):
    """The look at what is served there ends no server."""
    server = serve("--listen", "127.0.0.1:0")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.run("print push(7)")
    assert "core: 3 threads" in gdb.run(f"uffd connect {server.where}")
    works(gdb)
    gdb.run("uffd kill")
    assert server.process.wait(20) == 0
