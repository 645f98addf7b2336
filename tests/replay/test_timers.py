"""Timers that a call sets fire on the program's own clock, and are undone with the call."""

from __future__ import annotations

import errno
import signal
from contextlib import closing
from typing import Iterator

import pytest
from harness.calls import Caller, Client
from harness.cores import core_of
from harness.telling import asked, message, refused

from gdb_uffd.replay.interface import SOFTWARE, Resume, Stop
from gdb_uffd.replay.rerun.play import Rerun
from gdb_uffd.replay.rerun.writes import Running, Write


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return core_of("timers", tmp_path_factory.mktemp("timers"), "-lrt")


@pytest.fixture(params=["notified", "traced"])
def caller(core, request) -> Iterator[Caller]:
    made = Caller(core)
    made.diversion.vessel.native.no_listener = request.param == "traced"
    yield made
    made.close()


def passing(caller: Caller, name: str, argument: int = 0, keep: bool = False) -> "int | Stop":
    """The function's value, every signal passed on as gdb does; or the stop that ended it."""
    d = caller.diversion
    saved = d.registers(caller.tid)
    stop = caller.start(name, argument)
    result = caller.result
    d.insert_breakpoint(SOFTWARE, caller.landing, 1)
    while stop.signal != signal.SIGTRAP and not message(stop):
        stop = d.resume(Resume(caller.tid, "c", stop.signal), Client())
        result = d.registers(caller.tid).gpr[saved.arch.result]
    d.remove_breakpoint(SOFTWARE, caller.landing, 1)
    if stop.breakpoint:
        d.set_registers(caller.tid, saved)
    d.call_end()
    caller.reports.append(d.end(keep))
    if not stop.breakpoint:
        return stop
    return result - (1 << 64) if result >> 63 else result


def test_a_pause_is_ended_by_it(caller):
    assert 30_000 <= passing(caller, "alarm_ends_pause") < 30_100
    assert "alarm" in asked(caller.reports[-1]) and not refused(caller.reports[-1])


def test_a_sleep_is_cut_short(caller):
    assert passing(caller, "alarm_cuts_sleep") == 70
    assert passing(caller, "alarm_later") == 70


@pytest.mark.parametrize("which", range(3))
def test_a_loop_that_computes_is_interrupted(caller, which):
    assert passing(caller, "compute_until_fired", which) == 1


def test_intervals(caller):
    assert passing(caller, "interval", 5) == 5


def test_timers_of_timer_create(caller):
    for to_thread in (0, 1):
        assert passing(caller, "posix_timer", to_thread) == 0
    assert -3_600_000 <= passing(caller, "absolute") < -3_599_000


def test_one_that_needs_a_thread_is_told(caller):
    assert passing(caller, "thread_timer") == errno.EAGAIN
    assert any(line.startswith("clone") for line in refused(caller.reports[-1]))


def test_descriptors(caller):
    assert passing(caller, "by_descriptor") == 0


def test_waits(caller):
    assert passing(caller, "wait_cut") == errno.EINTR
    assert passing(caller, "wait_for_alarm") == signal.SIGALRM
    assert passing(caller, "suspend") == 1
    notified = caller.diversion.vessel.native.listener >= 0
    again = passing(caller, "wait_again")
    if notified:  # else the kernel cannot be told to begin anew
        assert isinstance(again, Stop) and message(again).startswith("would block: futex")


def test_it_goes_with_the_call_or_stays(caller):
    passing(caller, "arm_alarm")
    assert passing(caller, "left_of_alarm") == 0
    passing(caller, "arm_alarm", keep=True)
    assert passing(caller, "left_of_alarm") == 1000
    caller.diversion.reset()
    assert passing(caller, "left_of_alarm") == 0


@pytest.mark.parametrize("keep", [False, True])
def test_a_call_made_once_more_has_those_from_before_it(caller, keep):
    passing(caller, "arm_alarm", keep=True)
    assert passing(caller, "cancel_alarm", keep=keep) == 1000
    rerun = Rerun(caller.diversion, caller.symbol("cancelled"), 8, False, 10)
    with closing(rerun):
        while isinstance(event := rerun.next(), Running):
            pass
        assert isinstance(event, Write) and int.from_bytes(event.after, "little") == 1000
    assert passing(caller, "left_of_alarm") == (0 if keep else 1000)  # the session's own


def test_waiting_for_days_again_and_again_is_told(caller):
    stop = passing(caller, "poll_for_ever")
    assert isinstance(stop, Stop) and message(stop).startswith("would block: poll")
    assert passing(caller, "poll_often") == 3000
