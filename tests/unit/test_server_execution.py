"""Running: vCont, stop replies, interrupts, and who goes away meanwhile, over a real socket."""

from __future__ import annotations

import select
import threading
from typing import Iterator

import pytest
from server_fakes import PID, TIDS, FakeDiversion, RawClient, serving

from gdb_uffd.protocol.ends import End, Unavailable
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.agent import Orders
from gdb_uffd.replay.interface import Disconnected, Resume, Stop, StubClient
from gdb_uffd.server.stub.framing import frame

OFFERED = b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+"
T1, T2, T3 = (b"p%x.%x" % (PID, t) for t in TIDS)


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as connected:
        yield connected


def resumed(client: RawClient) -> Resume:
    action = client.diversion.asked[-1][1]
    assert isinstance(action, Resume)
    return action


def test_resume_picks_the_thread(client: RawClient) -> None:
    assert client.ask(b"vCont?") == b"vCont;c;C;s;S;t;r"
    reply = client.ask(b"vCont;c:p%x.-1" % PID)
    assert reply is not None and reply.startswith(b"T05") and b"thread:" + T1 in reply
    assert resumed(client) == Resume(TIDS[0], "c")
    client.ask(b"vCont;s:" + T2 + b";c:p%x.-1" % PID)
    assert resumed(client) == Resume(TIDS[1], "s")
    client.ask(b"vCont;c")
    assert resumed(client) == Resume(TIDS[1], "c")  # where it stopped last
    client.ask(b"Hg" + T3)
    client.ask(b"vCont;C0a:p%x.-1" % PID)
    assert resumed(client) == Resume(TIDS[2], "c", signal=7)
    # A call in the third thread, while the first has the signal it was recorded with.
    client.ask(b"P0=" + b"00" * 8)
    client.ask(b"vCont;C0b:" + T1 + b";c:p%x.-1" % PID)
    assert resumed(client) == Resume(TIDS[2], "c")
    client.ask(b"P0=" + b"00" * 8)
    client.ask(b"vCont;C0a:" + T3 + b";C0b:" + T1 + b";c:p%x.-1" % PID)
    assert resumed(client) == Resume(TIDS[2], "c", signal=7)  # gdb's 10 is SIGBUS
    client.ask(b"Hg" + T1)
    client.ask(b"P0=" + b"00" * 8)
    client.ask(b"vCont;r400000,400010:" + T1 + b";c")
    assert resumed(client) == Resume(TIDS[0], "r", lo=0x400000, hi=0x400010)
    client.ask(b"vCont;c:p%x.-1;s:" % PID + T3)
    assert resumed(client) == Resume(TIDS[2], "s")
    # `continue` in the first, after a look at the others.
    client.ask(b"Hg" + T1)
    client.ask(b"Hg" + T3)
    client.ask(b"vCont;C0b:" + T1 + b";c:p%x.-1" % PID)
    assert resumed(client) == Resume(TIDS[0], "c", signal=11)
    client.ask(b"vCont;s:" + T3)
    client.ask(b"s")
    assert resumed(client) == Resume(TIDS[2], "s")
    client.ask(b"C0b")
    assert resumed(client) == Resume(TIDS[2], "c", signal=11)
    count = len(client.diversion.asked)
    for bad in (
        b"vCont;",
        b"vCont;q",
        b"vCont;c:p%x.77" % PID,
        b"vCont;Czz",
        b"vCont;r1",
        b"Sx",
        b"vCont;r1,2,3",
        b"vCont;cc",
        b"vCont;c:zz",
    ):
        assert (client.ask(bad) or b"").startswith(b"E"), bad
    assert client.ask(b"vCont;t:" + T1) == b"OK"
    assert len(client.diversion.asked) == count


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (Stop(TIDS[1], 5, "swbreak"), b"T05swbreak:;"),
        (Stop(TIDS[1], 5, "hwbreak"), b"T05hwbreak:;"),
        (Stop(TIDS[1], 5, "watch", 0x600008), b"T05watch:600008;"),
        (Stop(TIDS[1], 5, "awatch", 0x600008), b"T05awatch:600008;"),
        (Stop(TIDS[1], 5, "syscall_entry", 257), b"T05syscall_entry:101;"),
        (Stop(TIDS[1], 5, "syscall_return", 231), b"T05syscall_return:e7;"),
        (Stop(TIDS[1], 7), b"T0a"),
        (Stop(TIDS[1], 0), b"T00"),
    ],
)
def test_stop_replies(stop: Stop, text: bytes) -> None:
    with serving(FakeDiversion(on_resume=lambda action, client: stop)) as client:
        client.ask(OFFERED)
        reply = client.ask(b"vCont;c")
        assert reply is not None and reply.startswith(text + b"06:")
        assert reply.endswith(b"thread:" + T2 + b";")
        assert client.ask(b"qC") == b"QC" + T2


def test_swbreak_is_not_said_to_who_did_not_ask() -> None:
    with serving(FakeDiversion(on_resume=lambda a, c: Stop(a.tid, 5, "swbreak"))) as client:
        assert b"swbreak" not in (client.ask(b"vCont;c") or b"swbreak")


def test_output_and_messages_come_before_the_stop() -> None:
    end = End("unavailable", unavailable=Unavailable(0x1000, "lost", "\nget it"))

    def run(action: Resume, client: StubClient) -> Stop:
        client.output(b"x" * 20000)
        return Stop(action.tid, 5, end=end)

    with serving(FakeDiversion(on_resume=run)) as client:
        assert (client.ask(b"vCont;c") or b"").startswith(b"T05")
        expected = b"uffd: the page at 0x1000 is not in the trace: lost; get it\n"
        assert client.console == b"x" * 20000 + b"\n" + expected  # on a line of its own


@pytest.mark.parametrize("error", [UffdError("userfaultfd is forbidden: set x"), KeyError("bug")])
def test_a_failed_resume_says_why_and_stops(error: Exception) -> None:
    def run(action: Resume, client: StubClient) -> Stop:
        raise error

    with serving(FakeDiversion(on_resume=run)) as client:
        assert (client.ask(b"vCont;c") or b"").startswith(b"T00")
        assert client.console.startswith(b"uffd: ") and str(error).encode() in client.console
        assert client.ask(b"qC") == b"QC" + T1


def test_interrupt_while_running() -> None:
    def run(action: Resume, client: StubClient) -> Stop:
        while True:
            select.select([client.fileno()], [], [])
            if client.interrupt_requested():
                return Stop(action.tid, 2)

    with serving(FakeDiversion(on_resume=run)) as client:
        client.send(b"vCont;c")
        client.sock.sendall(b"\x03")
        assert (client.receive() or b"").startswith(b"T02")
        client.sock.sendall(frame(b"vCont;c") + b"\x03" + frame(b"qC"))
        assert (client.receive() or b"").startswith(b"T02")
        assert client.receive() == b"QC" + T1


def test_a_signal_wakes_who_waits_for_the_client() -> None:
    """Native code polls fileno() alone, and runs no Python signal handler meanwhile."""
    import select
    import signal
    import socket

    from gdb_uffd.server.listen.connection import Connection
    from gdb_uffd.server.listen.serve import Terminated, termination

    ours, theirs = socket.socketpair()
    with ours, termination(signal.SIGUSR1) as wake:
        connection = Connection(theirs, wake)
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        assert not poll.poll(0)
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGUSR1)
        assert poll.poll(0)
        assert not connection.interrupt_requested()
        assert not poll.poll(0)
        ours.sendall(b"\x03")
        assert poll.poll(1000)
        assert connection.interrupt_requested()
        connection.close()


def test_interrupt_that_came_with_the_resume_runs_nothing(client: RawClient) -> None:
    client.sock.sendall(frame(b"vCont;c") + b"\x03")
    assert (client.receive() or b"")[:1] == b"T"


def test_an_interrupt_while_stopped_is_for_the_next_resume() -> None:
    """gdb manual, "Interrupts": gdb's own stepping stops the program all the time."""
    with serving() as client:
        client.sock.sendall(b"\x03")
        assert client.ask(b"qC") == b"QC" + T1
        assert (client.ask(b"vCont;s:" + T2) or b"").startswith(b"T02")
        assert client.ask(b"qC") == b"QC" + T2
        assert not client.diversion.asked  # nothing ran
        assert (client.ask(b"vCont;s:" + T2) or b"").startswith(b"T05")  # once
        client.sock.sendall(b"\x03")
        assert client.ask(b"quffd.reset") == b"{}"  # what was to be interrupted is no more
        assert (client.ask(b"vCont;s:" + T2) or b"").startswith(b"T05")


def test_an_interrupt_as_a_step_completes_is_for_the_next_resume() -> None:
    begun = threading.Event()

    def run(action: Resume, client: StubClient) -> Stop:
        begun.set()
        select.select([client.fileno()], [], [], 10)
        assert client.interrupt_requested()
        return Stop(action.tid, 5)

    with serving(FakeDiversion(on_resume=run)) as client:
        client.sock.sendall(frame(b"vCont;s:" + T2))
        assert begun.wait(10)
        client.sock.sendall(b"\x03")
        assert (client.receive() or b"").startswith(b"T05")
        assert (client.ask(b"vCont;s:" + T2) or b"").startswith(b"T02")


def test_the_client_vanishes_while_running() -> None:
    import select

    ended = []

    def run(action: Resume, client: StubClient) -> Stop:
        try:
            while True:
                select.select([client.fileno()], [], [])
                client.interrupt_requested()
        except Disconnected:
            ended.append(True)
            raise

    with serving(FakeDiversion(on_resume=run)) as client:
        client.send(b"vCont;c")
    assert ended


@pytest.mark.parametrize("packet", [b"D", b"D;1234", b"vKill;1234"])
def test_detach_and_kill_close_before_the_reply(packet: bytes) -> None:
    with serving() as client:
        assert client.ask(packet) == b"OK"
        assert client.diversion.closed
        assert client.receive() is None


def test_k_ends_without_a_reply() -> None:
    with serving() as client:
        assert client.ask(b"k") is None


def test_what_a_breakpoint_does_by_itself(client: RawClient) -> None:
    assert b"ConditionalBreakpoints+;BreakpointCommands+" in (client.ask(b"qSupported") or b"")
    orders = client.diversion.orders
    assert client.ask(b"Z0,400010,1;X3,220127X3,220027") == b"OK"
    assert orders[0x400010] == Orders((b"\x22\x01\x27", b"\x22\x00\x27"))
    assert client.ask(b"Z0,400010,1;X1,27;cmds:0,X1,27X2,2827") == b"OK"
    assert orders[0x400010] == Orders((b"\x27",), (b"\x27", b"\x28\x27"))
    assert client.ask(b"Z0,400010,1;later:1") == b"OK" and orders[0x400010] is None
    for bad in (b"X3,2201", b"X", b"X1", b"X1,", b"X0,", b"X1,zz", b"X1,27Y", b"Xffffffff,27",
                b"X1,27;cmds:0,Y1,27", b"X2,27;cmds:1,"):  # fmt: skip
        assert client.ask(b"Z0,400020,1;" + bad) == b"E16", bad
    assert 0x400020 not in orders


def test_which_system_calls_are_caught(client: RawClient) -> None:
    diversion = client.diversion
    assert client.ask(b"QCatchSyscalls:1;101;e7") == b"OK"
    assert diversion.calls == frozenset((257, 231))
    assert client.ask(b"QCatchSyscalls:1") == b"OK" and diversion.calls == frozenset()
    assert client.ask(b"QCatchSyscalls:0") == b"OK" and diversion.calls is None
    for bad in (b"", b"2", b"1;", b"1;zz", b"0;1", b"1" + b";1" * 5000):
        assert client.ask(b"QCatchSyscalls:" + bad) == b"E16", bad
    assert diversion.calls is None


def test_which_signals_are_passed(client: RawClient) -> None:
    assert client.ask(b"QPassSignals:e;14;97;1e") == b"OK"  # ALRM, CHLD, none of Linux, USR1
    assert client.diversion.passed == frozenset((14, 17, 10))
    assert client.ask(b"QPassSignals:21;e") == b"OK"  # POLL is no SIGIO that gdb stops at
    assert client.diversion.passed == frozenset((14,))
    assert client.ask(b"QPassSignals:17;e") == b"OK"  # IO is
    assert client.diversion.passed == frozenset((14, 29))
    assert client.ask(b"QPassSignals:zz") == b"E16" and client.diversion.passed
    assert client.ask(b"QPassSignals:") == b"OK" and not client.diversion.passed
