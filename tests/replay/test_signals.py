"""Signals that the program sends itself: they arrive as alive, from the recorded process."""

from __future__ import annotations

import signal
import struct
import subprocess
from typing import Iterator

import pytest
from harness import ROOT
from harness.calls import Caller, Client
from harness.cores import kernel_core
from harness.telling import asked, ended, refused

from gdb_uffd.replay.interface import SOFTWARE, Resume
from gdb_uffd.replay.policy import syscalls

KILL, RAISE, TGKILL, THREAD, QUEUE, ABORT = range(6)
UID = 4242
"""Another one than anybody's here."""


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    program = folder / "signals"
    source = ROOT / "tests" / "programs" / "signals.c"
    subprocess.run(["cc", "-g", "-O1", "-pthread", "-o", program, source], check=True)
    return kernel_core([str(program)], folder)


@pytest.fixture(params=["notified", "traced"])
def caller(core, request) -> Iterator[Caller]:
    """Both ways in which a system call can arrive."""
    made = Caller(core)
    vessel = made.diversion.vessel.native
    vessel.no_listener = request.param == "traced"
    vessel.identity.uid = UID
    yield made
    made.close()


def handled(caller: Caller, number: int, way: int) -> int:
    """The function's value; its signal stops the call first, as for gdb, and is passed on."""
    stop = caller.start("handle", number | way << 8)
    d = caller.diversion
    assert stop.signal == number, stop
    pid, uid = struct.unpack_from("<iI", d.siginfo(caller.tid), 16)
    assert (pid, uid) == (caller.snapshot.pid, UID)
    saved = d.registers(caller.tid)
    d.insert_breakpoint(SOFTWARE, caller.landing, 1)
    stop = d.resume(Resume(caller.tid, "c", number), Client())
    d.remove_breakpoint(SOFTWARE, caller.landing, 1)
    assert stop.breakpoint == "swbreak", (stop, saved)
    result = d.registers(caller.tid).gpr[saved.arch.result] & 0xFFFFFFFF
    d.call_end()
    d.end(False)
    return result


CATCHABLE = sorted(set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTRAP}) + [
    34,
    40,
    64,
]


def test_every_signal_reaches_its_handler(caller):
    for number in CATCHABLE:
        assert handled(caller, number, KILL) == 1, number


def test_whichever_way_it_was_sent(caller):
    for way in (RAISE, TGKILL, THREAD, QUEUE):
        for number in (signal.SIGUSR1, signal.SIGTSTP, 40):
            assert handled(caller, number, way) == 1, (number, way)


def test_abort_tells_of_the_recorded_process(caller):
    stop = caller.start("handle", signal.SIGUSR1 | ABORT << 8)
    assert stop.signal == signal.SIGABRT
    pid, uid = struct.unpack_from("<iI", caller.diversion.siginfo(caller.tid), 16)
    assert (pid, uid) == (caller.snapshot.pid, UID)
    caller.diversion.call_end()
    caller.diversion.end(False)


def test_waiting_for_it_tells_of_its_sender(caller):
    for way in (KILL, RAISE, TGKILL, THREAD, QUEUE):
        for number in (signal.SIGUSR1, signal.SIGTTIN, 34):
            assert caller.call("wait_for", number | way << 8) == 1, (number, way)
    assert caller.call("wait_plain", signal.SIGTTOU) == signal.SIGTTOU


def test_a_signalfd_reads_it(caller):
    for number in (signal.SIGUSR1, signal.SIGTSTP, 64):
        assert caller.call("read_records", number) == 3


def test_nothing_of_a_call_is_left_for_the_next(caller):
    for _ in range(2):
        stop = caller.start("raise_two")
        assert stop.signal == signal.SIGUSR2
        caller.diversion.call_end()
        report = caller.diversion.end(False)
        assert refused(report) and "kill" in " ".join(asked(report))
        assert caller.call("unblock") == 7
        report = caller.reports[-1]
        assert not (refused(report) or asked(report) or ended(report) or report.blocked)
        assert caller.diversion.siginfo(caller.tid) == caller.snapshot.threads[0].siginfo


def test_a_signal_of_the_users_reaches_the_handler_and_is_no_stop(caller):
    """`signal SIGUSR1` where no signal stopped it: behind a system call."""
    d = caller.diversion
    d.catch_calls(frozenset({syscalls.by_name()["getpid"].number}))
    stop = caller.start("handle", signal.SIGUSR1 | KILL << 8)  # getpid() comes before its own
    assert stop.breakpoint == "syscall_entry", stop
    assert d.resume(Resume(caller.tid, "c"), Client()).breakpoint == "syscall_return"
    d.catch_calls(None)
    at = caller.symbol("handled")
    assert d.read_memory(at, 4) == bytes(4)
    stop = d.resume(Resume(caller.tid, "c", signal.SIGUSR1), Client())
    assert stop.signal == signal.SIGUSR1, stop  # its own, and the handler was there before
    assert struct.unpack("<i", d.read_memory(at, 4))[0] == signal.SIGUSR1
    pid, uid = struct.unpack_from("<iI", d.siginfo(caller.tid), 16)
    assert (pid, uid) == (caller.snapshot.pid, UID)
    d.call_end()
    d.end(False)


def test_a_breakpoint_of_gdbs_is_told_as_a_trap(core):
    """Where a dummy frame returns to the stack, the kernel tells of a fault."""
    caller = Caller(core)
    try:
        stop = caller.start("handle", signal.SIGUSR1 | RAISE << 8)
        assert stop.signal == signal.SIGUSR1
        d = caller.diversion
        d.insert_breakpoint(SOFTWARE, caller.landing, 1)
        assert d.resume(Resume(caller.tid, "c"), Client()).breakpoint == "swbreak"
        code = d.registers(caller.tid).arch.breakpoint_code
        told = struct.pack("<iii", signal.SIGTRAP, 0, code)
        assert d.siginfo(caller.tid) == told + bytes(128 - len(told))  # siginfo_t, all of it
    finally:
        caller.close()
