"""`gdb-uffd serve` and a gdb without our commands: by socket, by port, behind a token."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Iterator, List

import pytest
from harness import ROOT, survivors
from harness.lldbs import Server

CLI = str(ROOT / ".venv" / "bin" / "gdb-uffd")
TOKEN = "0123456789abcdefg"


@pytest.fixture
def serve(all_cores) -> Iterator[object]:
    """Starts `gdb-uffd serve` of a core, the sample's, with these options."""
    started: List[Server] = []

    def start(*options: str, core: str = "sample") -> Server:
        started.append(Server([str(getattr(all_cores, core)()), *options]))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


def looks_and_calls(gdb, program: Path, target: str) -> None:
    gdb.run(f"file {program}")
    text = gdb.run(f"target remote {target}")
    assert "lookup (value=99)" in text, text
    assert "worker" in gdb.run("thread apply 2 backtrace")
    assert gdb.value("counter") == "1041"
    assert gdb.value("push(7)") == "1042"
    assert gdb.value("head->value") == "7"
    gdb.run("detach")


def test_plain_gdb_by_a_unix_socket(start_gdb, built, serve, tmp_path):
    server = serve("--listen", f"unix:{tmp_path}/s")
    looks_and_calls(start_gdb(init=None), built / "sample", server.where)
    assert server.process.wait(20) == 0


def test_a_client_without_target_description_and_processes(start_gdb, built, serve, tmp_path):
    server = serve("--listen", f"unix:{tmp_path}/s")
    gdb = start_gdb(init=None)
    gdb.run("set remote target-features-packet off")
    gdb.run("set remote multiprocess-feature-packet off")
    looks_and_calls(gdb, built / "sample", server.where)
    assert server.process.wait(20) == 0


def test_plain_gdb_by_a_loopback_port(start_gdb, built, serve):
    server = serve("--listen", "127.0.0.1:0")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", server.where)
    looks_and_calls(start_gdb(init=None), built / "sample", server.where)
    assert server.process.wait(20) == 0


def test_an_exposed_port_wants_the_token(start_gdb, built, serve, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    server = serve("--listen", "0.0.0.0:0", "--expose", "--token-file", str(file))
    assert server.where.startswith(f"| gdb-uffd connect {socket.gethostname()}:")
    port = server.where.rpartition(":")[2]
    gdb = start_gdb(init=None)
    refused = gdb.run(f"target remote 127.0.0.1:{port}")
    assert "Remote " in refused and "0x" not in gdb.run("info registers"), refused
    assert "lookup" not in refused
    through = f"| {CLI} connect 127.0.0.1:{port} --token-file {file}"
    looks_and_calls(gdb, built / "sample", through)
    said = server.stop()
    assert "warning: this port can be reached from other machines" in said
    assert "refused 127.0.0.1" in said


def test_the_token_is_printed_and_passed_by_environment(start_gdb, built, serve):
    server = serve("--listen", "0.0.0.0:0", "--expose")
    assert server.process.stdout is not None
    name, _, token = server.process.stdout.readline().strip().partition("=")
    assert name == "GDB_UFFD_TOKEN" and len(token) >= 16
    port = server.where.rpartition(":")[2]
    gdb = start_gdb(init=None, env={name: token})
    looks_and_calls(gdb, built / "sample", f"| {CLI} connect 127.0.0.1:{port}")


def test_connect_makes_a_socket_for_clients_without_pipes(start_gdb, built, serve, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    server = serve("--listen", "0.0.0.0:0", "--expose", "--token-file", str(file))
    port = server.where.rpartition(":")[2]
    command = [CLI, "connect", f"127.0.0.1:{port}", "--token-file", str(file)]
    relay = subprocess.Popen(
        [*command, "--listen", f"unix:{tmp_path}/near"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert relay.stdout is not None
        where = relay.stdout.readline().split(maxsplit=2)[2].strip()
        looks_and_calls(start_gdb(init=None), built / "sample", where)
        assert relay.wait(20) == 0
    finally:
        relay.kill()
        relay.communicate()


def test_ctrl_c_through_the_pipe(start_gdb, built, serve, tmp_path):
    """gdb's Ctrl-C also reaches the pipe's process, which must pass on the packet it makes."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    options = ["--listen", "0.0.0.0:0", "--expose", "--token-file", str(file)]
    port = serve(*options, core="zoo").where.rpartition(":")[2]
    gdb = start_gdb(init=None)
    gdb.run(f"file {built / 'zoo'}")
    gdb.run(f"target remote | {CLI} connect 127.0.0.1:{port} --token-file {file}")
    gdb.send("print forever()")
    survivors.wait_computing()
    text = gdb.interrupt()
    assert "SIGINT" in text, text
    assert int(gdb.value("spins")) > 0
