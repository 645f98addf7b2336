"""A call that spins until another thread has done something is ended; none that gets somewhere."""

from __future__ import annotations

import os
import signal

import pytest
from harness import calls
from harness.telling import ended, message

from gdb_uffd.protocol.model import ENGINES
from gdb_uffd.replay import circle
from gdb_uffd.replay.interface import SOFTWARE
from gdb_uffd.replay.trackers import kernel


@pytest.fixture
def caller(all_cores, monkeypatch):
    monkeypatch.setattr(circle, "FIRST_NS", 20_000_000)
    made = calls.Caller(all_cores.heaps("spins"))
    yield made
    made.close()


@pytest.mark.parametrize("name", ["ask", "ask_hot", "ask_slow", "ask_locked", "ask_pipe"])
def test_it_spins(caller, name):
    stop = caller.start(name)
    assert stop.signal == 0 and "spins for ever" in message(stop), stop
    assert caller.diversion.blocked.kind == "spin"
    caller.diversion.call_end()
    report = caller.diversion.end(False)
    assert report.blocked is not None and "spins" in ended(report)
    assert caller.call("count", 5) == 5


@pytest.mark.parametrize("name", ["count", "grow"])
def test_it_gets_somewhere(caller, name):
    """Some tenths of a second, in which it is looked at many times."""
    expected = {"count": 200_000_000, "grow": 1}[name]
    assert caller.call(name, 200_000_000) == expected


def test_alone(all_cores, monkeypatch):
    """Where no other thread was recorded, nothing tells that it waits: the limit ends it."""
    monkeypatch.setattr(circle, "FIRST_NS", 20_000_000)
    looks = []
    monkeypatch.setattr(circle.Circle, "look", lambda self, step: looks.append(1))
    made = calls.Caller(all_cores.heaps("spins"), lambda s: setattr(s, "threads", s.threads[:1]))
    assert made.call("count", 100_000_000) == 100_000_000
    assert not looks
    made.close()


class Killer(calls.Client):
    """Kills the vessel when it is told that it runs for long."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid

    def runs_on(self, seconds: float) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.pid = 0


@pytest.mark.parametrize("engine", [name for name in ENGINES if not kernel().failure(name)])
def test_a_vessel_that_is_killed_while_it_runs_is_told_under_each_engine(caller, engine):
    """No error is made of what cannot be read of it any more."""
    d = caller.diversion
    d.set_engine(engine)
    assert caller.call("count", 5, keep=True) == 5
    at = caller.symbol("work")
    before = caller.snapshot.read(at, 8)
    d.write_memory(at, b"\x77" * 8)
    stop = caller.start("count", 2_000_000_000, Killer(d.info()["vessel_pid"]))
    assert stop.lost and "was killed by signal 9 from outside" in message(stop), stop
    assert d.read_memory(at, 8) == before
    d.call_end()
    d.end(False)
    assert caller.call("count", 5) == 5


@pytest.mark.parametrize("engine", [name for name in ENGINES if not kernel().failure(name)])
def test_a_vessel_that_is_killed_where_a_call_stands(caller, engine):
    """The report says what happened, and no error is made of it: not of what ran before either,
    which is looked at only now."""
    d = caller.diversion
    d.set_engine(engine)
    d.insert_breakpoint(SOFTWARE, caller.symbol("count"), 1)
    d.write_memory(caller.symbol("work"), bytes(8))
    assert caller.start("count", 5).breakpoint == "swbreak"
    os.kill(d.vessel.pid, signal.SIGKILL)
    os.waitid(os.P_PID, d.vessel.pid, os.WEXITED | os.WNOWAIT)
    d.call_end()
    report = d.end(True)
    assert not report.kept and not report.pages
    assert ended(report).startswith("the process was killed from outside"), report
    d.remove_breakpoint(SOFTWARE, caller.symbol("count"), 1)
    assert caller.call("count", 5) == 5
