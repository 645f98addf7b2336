"""A call that spins until another thread has done something is ended; none that gets somewhere."""

from __future__ import annotations

import pytest
from harness import calls

from gdb_uffd.replay import circle


@pytest.fixture
def caller(all_cores, monkeypatch):
    monkeypatch.setattr(circle, "FIRST_NS", 20_000_000)
    made = calls.Caller(all_cores.heaps("spins"))
    yield made
    made.close()


@pytest.mark.parametrize("name", ["ask", "ask_hot", "ask_slow", "ask_locked", "ask_pipe"])
def test_it_spins(caller, name):
    stop = caller.start(name)
    assert stop.signal == 0 and "spins for ever" in stop.message, stop
    assert caller.diversion.blocked.kind == "spin"
    caller.diversion.call_end()
    report = caller.diversion.end(False)
    assert report.blocked is not None and "spins" in report.ended
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
