"""The recorder's side of the conversation: what ends it, and what becomes of the program then."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
from types import SimpleNamespace
from typing import Iterator, List

import pytest

from gdb_uffd.recorder import capture, service
from gdb_uffd.recorder.wire import Message, WireError, receive, send

PATIENCE_S = 2.0
FILES = ("mem", "pagemap", "maps")


def status(state: str = "S (sleeping)", tracer: int = 0, own: int = 0, shared: int = 0) -> bytes:
    """As /proc/PID/status has it (proc_pid_status(5))."""
    return (
        f"Name:\tx\nState:\t{state}\nTracerPid:\t{tracer}\n"
        f"SigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{1 << 18:016x}\n"
    ).encode()


STOPPED, STOPS = status("T (stopped)"), 1 << (signal.SIGSTOP - 1)


@pytest.fixture
def looked_after(monkeypatch):
    """What continue_orphan sends to a program with these threads, one list of them each 10 ms, the
    last one from then on; and for how long it looks."""
    clock, sent = SimpleNamespace(now=100.0), []
    time = SimpleNamespace(monotonic=lambda: clock.now)

    def after(seen: List[List[bytes]]):
        def states(_pid: int) -> List[bytes]:
            return seen.pop(0) if len(seen) > 1 else seen[0]

        def sleep(seconds: float) -> None:
            clock.now += seconds

        time.sleep, clock.now = sleep, 100.0
        sent.clear()
        monkeypatch.setattr(service, "_states", states)
        service.continue_orphan(4711, PATIENCE_S)
        return set(sent), round(clock.now - 100, 1)

    monkeypatch.setattr(service, "time", time)
    monkeypatch.setattr(service.os, "kill", lambda pid, number: sent.append((pid, number)))
    return after


def test_a_program_whose_gdb_is_gone_goes_on(looked_after):
    told, second = {(4711, signal.SIGCONT)}, service._DELIVERED_S
    traced = status("t (tracing stop)", tracer=7)
    for seen, sent, seconds in (
        ([[]], set(), 0),  # it has ended
        ([[status()]], set(), second),
        ([[STOPPED]], told, second),
        ([[status(), STOPPED]], told, second),
        ([[status(own=STOPS)]], told, second),
        ([[status(shared=STOPS | 1)]], told, second),
        ([[status(own=STOPS >> 1, shared=STOPS << 1)]], set(), second),  # SIGCONT, SIGTSTP
        ([[traced]], set(), PATIENCE_S),
        ([[status("T (stopped)", tracer=7)]], set(), PATIENCE_S),
        ([[STOPPED, traced]], set(), PATIENCE_S),  # gdb lets go of one after the other
        ([[STOPPED, traced], [STOPPED, STOPPED]], told, second),
        # What was held back for the tracer comes a moment after it has let go.
        ([*[[traced]] * 195, *[[status()]] * 50, [STOPPED]], told, 1.9 + second),
    ):
        assert looked_after(list(seen)) == (sent, pytest.approx(seconds, abs=0.11)), seen


def test_a_real_one_does(monkeypatch):
    monkeypatch.setattr(service, "_DELIVERED_S", 0.0)
    with subprocess.Popen(["sleep", "1000"]) as program:
        try:
            program.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, program.pid, os.WSTOPPED)
            service.continue_orphan(program.pid, 60)
            assert os.waitid(os.P_PID, program.pid, os.WCONTINUED | os.WNOHANG) is not None
        finally:
            program.kill()


@pytest.fixture
def ends() -> Iterator["tuple[service.Service, socket.socket]"]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(30)
    with ours, theirs:
        yield service.Service(ours), theirs


@pytest.mark.parametrize("leaving", [False, True])
def test_closed_in_the_middle_of_a_snapshot(ends, leaving):
    """gdb waits for the answer, and is looked after only when it goes."""
    made, gdb = ends
    send(gdb, Message("close", {"leaving": leaving}))
    with pytest.raises(WireError, match="no threads"):
        made._expect("threads")
    assert made._patience_s == (service._ENDS_S if leaving else 0)
    gdb.shutdown(socket.SHUT_WR)
    made.run()
    answer = receive(gdb)
    assert answer is not None and (answer.verb, answer.data) == ("closed", {"snapshots": 0})


def test_what_else_can_come_in_the_middle_of_one(ends):
    made, gdb = ends
    send(gdb, Message("commit", {}))
    send(gdb, Message("import", {}))
    gdb.shutdown(socket.SHUT_WR)
    assert made._expect("commit").verb == "commit"
    for _ in ("import", "the end"):
        with pytest.raises(WireError, match="no threads"):
            made._expect("threads")
    made.run()
    made._connection.close()
    assert receive(gdb) is None  # nobody asked for an answer
    assert made._patience_s == service._LETS_GO_S


def test_memory_that_is_pinned_is_read_each_time(monkeypatch):
    with subprocess.Popen(["sleep", "1000"]) as program:
        fds = [os.open(f"/proc/{program.pid}/{name}", os.O_RDONLY) for name in FILES]
        target = capture.TargetProcess(program.pid, *fds, -1)
        try:
            for text, pinned in (
                (b"VmLck:\t      64 kB\nVmPin:\t       0 kB\nVmHWM:\t 64 kB\n", False),
                (b"VmLck:\t       0 kB\nVmPin:\t      64 kB\nVmHWM:\t 64 kB\n", True),
                (b"Name:\tx\nState:\tZ (zombie)\n", False),
            ):
                given = lambda *_, text=text: io.BytesIO(text)  # noqa: E731
                monkeypatch.setattr(capture, "open", given, raising=False)
                target.scan()
                assert bool(target._record.read_all) is pinned
        finally:
            program.kill()
            target.close()
            for fd in fds:
                os.close(fd)
