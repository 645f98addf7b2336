"""Descriptors between the program and itself: an event loop's wake-up, and what a call makes."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Iterator

import pytest
from harness.calls import Caller
from harness.cores import core_of
from harness.telling import asked, message, refused

from gdb_uffd.replay.policy.identity import facts_of


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return core_of("loop", tmp_path_factory.mktemp("loop"))


@pytest.fixture(params=["notified", "traced"])
def caller(core, request) -> Iterator[Caller]:
    made = Caller(core)
    made.diversion.vessel.native.no_listener = request.param == "traced"
    yield made
    made.close()


def number(caller: Caller, name: str, index: int = 0) -> int:
    return int.from_bytes(
        caller.diversion.read_memory(caller.symbol(name) + 4 * index, 4), "little"
    )


def taken(caller: Caller) -> list:
    return [line for line in asked(caller.reports[-1]) if line.startswith("descriptor")]


def test_a_loop_wakes_itself(caller):
    event, pipe, pair = (
        number(caller, "event"),
        number(caller, "pipes", 1),
        number(caller, "pair", 1),
    )
    assert caller.call("wake_event", 3) == 1003
    assert taken(caller) == [f"descriptor {event}, taken for an eventfd of its own"]
    assert caller.call("wake_pipe", 5) == 5
    assert taken(caller) == [f"descriptor {pipe}, taken for a pipe of its own"]
    assert caller.call("wake_pair", 2) == 2
    assert taken(caller) == [f"descriptor {pair}, taken for a socket pair of its own"]
    assert not refused(caller.reports[-1])


def test_what_was_kept_stays_and_what_was_undone_does_not(caller):
    for keep in (False, True, True):
        assert caller.call("wake_event", 3, keep=keep) == 1003
    assert not taken(caller)  # that is known by now
    caller.diversion.reset()
    assert caller.call("wake_event", 1) == 1001 and taken(caller)


def test_other_bytes_leave_it_what_it_was(caller):
    assert caller.call("no_wake") == errno.EBADF
    assert refused(caller.reports[-1]) and not taken(caller)
    assert caller.call("eight_letters") == errno.EBADF


def test_a_recorded_epoll_has_nothing_to_tell(caller):
    assert caller.call("turn", 3_600_000) == 0
    assert taken(caller)
    assert caller.call("turn", 0) == 0
    stop = caller.start("turn", (1 << 64) - 1)
    caller.diversion.call_end()
    caller.reports.append(caller.diversion.end(False))
    assert message(stop).startswith("would block: epoll_wait")


@pytest.mark.parametrize("polled", [0, 1])
@pytest.mark.parametrize("what", ["event", "pipe", "pair"])
def test_what_nothing_comes_from_is_empty(caller, what, polled):
    for keep in (False, True, True):
        assert caller.call(f"empty_{what}", polled, keep=keep) == 0
        report = caller.reports[-1]
        fd = number(caller, {"event": "event", "pipe": "pipes", "pair": "pair"}[what])
        assert taken(caller) == [f"descriptor {fd}, taken for one that nothing comes from"]
        assert not refused(report)


def test_what_was_empty_is_woken(caller):
    for keep in (False, True, False):
        assert caller.call("empty_then_woken", keep=keep) == 0
        assert not refused(caller.reports[-1])


@pytest.mark.parametrize("woken", [0, 1])
def test_a_recorded_epoll_lets_go_of_what_it_had(caller, woken):
    assert caller.call("leave_loop", woken) == 0


@pytest.mark.parametrize(
    ("name", "how"), [("read_blocking", 0), ("read_blocking", 1), ("read_blocking_woken", 0)]
)
def test_a_read_that_the_program_made_a_waiting_one(caller, name, how):
    stop = caller.start(name, how)
    caller.diversion.call_end()
    caller.diversion.end(False)
    assert message(stop).startswith("would block: read")
    assert caller.call("empty_event", 1) == 0  # undone with the call


def test_what_nothing_comes_from_is_closed_once(caller):
    assert caller.call("close_silent") == 0
    assert caller.call("close_silent") == 0


def test_a_loop_of_the_calls_own(caller):
    assert caller.call("new_loop") == 0
    assert not refused(caller.reports[-1]) and not taken(caller)


@pytest.mark.parametrize(("function", "call"), [("fill_pipe", ""), ("read_empty", "read")])
def test_nobody_else_reads_or_writes(caller, function, call):
    if not call:
        assert caller.call(function) == 65536
        return
    stop = caller.start(function)
    caller.diversion.call_end()
    caller.diversion.end(False)
    assert message(stop).startswith(f"would block: {call}")


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ({"event": "anon_inode:[eventfd]"}, 1001),
        ({"event": "pipe:[77]"}, -errno.EBADF),  # its other end is somebody else's
        ({"event": "/tmp/log"}, -errno.EBADF),
        ({}, -errno.EBADF),
    ],
)
def test_what_the_recording_tells_holds(core, what, result):
    def change(snapshot):
        here = {7000: "somewhere"}  # too large a number does no harm
        here.update({number_of(snapshot, name): text for name, text in what.items()})
        snapshot.facts = replace(facts_of(snapshot), descriptors=here)

    def number_of(snapshot, name):
        return int.from_bytes(snapshot.read(snapshot.symbol(name), 4), "little")

    caller = Caller(core, change)
    try:
        assert caller.call("wake_event", 1) == result
    finally:
        caller.close()


EAGAIN, EBADF = -errno.EAGAIN, -errno.EBADF


@pytest.mark.parametrize(
    ("what", "read", "polled"),
    [
        ("anon_inode:[eventfd]", EAGAIN, EAGAIN),
        ("anon_inode:[timerfd]", EAGAIN, EAGAIN),
        ("anon_inode:[signalfd]", EAGAIN, EAGAIN),
        ("unix", EAGAIN, EAGAIN),
        ("pipe:[77]", EBADF, EAGAIN),  # what somebody else had written is not known
        ("tcp 127.0.0.1:5432", EBADF, EAGAIN),
        ("/tmp/log", EBADF, EAGAIN),
        (None, EBADF, EBADF),
    ],
)
def test_what_the_recording_tells_of_an_empty_one(core, what, read, polled):
    def change(snapshot):
        fd = int.from_bytes(snapshot.read(snapshot.symbol("event"), 4), "little")
        here = {} if what is None else {fd: what}
        snapshot.facts = replace(facts_of(snapshot), descriptors=here)

    caller = Caller(core, change)
    try:
        assert caller.call("read_event", 0) == read
        assert bool(refused(caller.reports[-1])) == (read == EBADF)
        assert caller.call("read_event", 1) == polled
        assert bool(refused(caller.reports[-1])) == (polled == EBADF)
    finally:
        caller.close()
