"""A move in a trace while another process answers for the present place."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path

import pytest
from harness import programs, traces
from harness.cores import NoKernelCore, kernel_core

import gdb_uffd.trace
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.server.listen.connection import Connection
from gdb_uffd.server.listen.serve import served
from gdb_uffd.server.navigator import Navigator
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import stub


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two snapshots of tests/programs/sample.c."""
    folder = tmp_path_factory.mktemp("moves")
    try:
        core = kernel_core([str(programs.build() / "sample")], folder / "core")
    except NoKernelCore as why:
        pytest.skip(str(why))
    return traces.recorded(core, folder / "t.uffd", 2, lambda snapshot: lambda number: {})


@pytest.mark.parametrize("way", ["goto", "backward", "excursion"])
def test_it_ends_before_the_move(recorded: Path, way: str) -> None:
    """And never answers, nor lets answer, what the move has closed: a write then ended the server
    by SIGSEGV."""
    ours, theirs = socket.socketpair()
    with ours, closing(gdb_uffd.trace.open(str(recorded))) as trace:
        navigator = Navigator(trace, Diversion)
        session = StubSession(navigator, Connection(theirs), served(navigator, "/tmp/s", 0.0))
        counter = session.diversion.snapshot.symbol("counter")
        assert counter is not None

        def ask(packet: str) -> bytes:
            reply = stub.handle(session, packet.encode())
            assert not reply.startswith(b"E"), (packet, reply)
            return reply

        def go(number: int) -> None:
            ask(f'quffd.goto:{{"number":{number},"now":true}}')

        ask("quffd.begin")
        ask(f"M{counter:x},1:05")
        ask('quffd.end:{"keep":true}')
        if way == "backward":
            go(1)
        if way == "excursion":
            ask("quffd.excursion:{}")
        ask("quffd.trace-begin")
        work = session.aside.work if session.aside is not None else None
        assert work is not None
        ask("bc") if way == "backward" else go(1)
        assert session.aside is None and session.diversion is navigator.position.diversion
        ask("quffd.trace-drop")
        if way == "excursion":
            ask("quffd.back")
            assert ask(f"m{counter:x},1") == b"05"
        assert session.diversion is navigator.position.diversion
        ask(f"M{counter:x},1:07")
        assert ask(f"m{counter:x},1") == b"07"
        assert json.loads(ask("quffd.info"))["alive"]
        session.navigator.close()
        session.connection.close()
