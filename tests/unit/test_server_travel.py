"""Moving in a trace, packet by packet: what is opened and closed, what gdb is told."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, List, Optional, Set

import pytest
from server_fakes import (
    CODE,
    DATA,
    PID,
    TIDS,
    FakeDiversion,
    FakeSnapshot,
    FakeTrace,
    RawClient,
    make_registers,
    serve_navigator,
)

from gdb_uffd.protocol.model import GPR, Mapping, ThreadState, UffdError
from gdb_uffd.server.listen.endpoint import Endpoint
from gdb_uffd.server.navigator import Navigator


def snapshot(number: int, tids: tuple = TIDS, **changes: Any) -> FakeSnapshot:
    """One whose first byte of DATA, and whose PC, tell its number."""
    threads = []
    for tid in tids:
        registers = make_registers()
        registers.gpr[GPR["rip"]] = CODE + number
        threads.append(ThreadState(tid, registers, 0, b"", 0, f"t{tid}"))
    made = FakeSnapshot(threads=threads, **changes)
    made.memory = {start: bytearray(page) for start, page in made.memory.items()}
    made.memory[DATA][0] = number
    return made


@dataclass
class World:
    """A navigator being served, its client, and every diversion that was made."""

    client: RawClient
    navigator: Navigator
    trace: FakeTrace
    made: List[FakeDiversion] = field(default_factory=list)

    def ask(self, verb: str, **arguments: Any) -> Any:
        packet = f"quffd.{verb}:{json.dumps(arguments)}" if arguments else f"quffd.{verb}"
        reply = self.client.ask(packet.encode())
        assert reply is not None
        if reply.startswith(b"E."):
            raise UffdError(reply[2:].decode())
        return json.loads(reply)

    def send(self, text: str) -> bytes:
        reply = self.client.ask(text.encode())
        assert reply is not None
        return reply

    def byte(self) -> int:
        return int(self.send(f"m{DATA:x},1"), 16)

    def open_places(self) -> List[int]:
        """Numbers of the snapshots that are open (told by their byte)."""
        return sorted(d.snapshot.memory[DATA][0] for d in self.made if not d.closed)


@contextmanager
def travelling(snapshots: Optional[List[FakeSnapshot]] = None, **broken: str) -> Iterator[World]:
    trace = FakeTrace(snapshots or [snapshot(n) for n in range(4)])
    made: List[FakeDiversion] = []

    def make(opened: FakeSnapshot) -> FakeDiversion:
        made.append(FakeDiversion(opened))
        return made[-1]

    navigator = Navigator(trace, make)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(20)
    thread = threading.Thread(target=serve_navigator, args=(theirs, navigator), daemon=True)
    thread.start()
    try:
        yield World(RawClient(ours, made[0]), navigator, trace, made)
    finally:
        ours.close()
        thread.join(20)
        assert not thread.is_alive()
        navigator.close()
        assert all(d.closed and d.snapshot.closed for d in made)


def test_a_trace_announces_reverse_execution_and_a_core_does_not() -> None:
    with travelling() as world:
        features = world.send("qSupported:swbreak+")
        assert b";ReverseContinue+;ReverseStep+" in features
    with travelling([snapshot(0)]) as world:
        assert b"Reverse" not in world.send("qSupported:swbreak+")
        assert world.send("bc") == b""


def test_snapshots_are_listed() -> None:
    with travelling() as world:
        data = world.ask("snapshots")
        assert [s["number"] for s in data["snapshots"]] == [0, 1, 2, 3] and data["current"] == 0
        assert data["snapshots"][2]["label"] == "l2"


def test_a_prepared_move_is_made_by_the_resume() -> None:
    with travelling() as world:
        move = world.ask("goto", number=2)
        assert move["number"] == 2 and move["reconnect"] is False
        assert world.byte() == 0 and world.ask("position")["number"] == 0
        stop = world.send("bc")
        assert stop.startswith(b"T00") and f"thread:p{PID:x}.{TIDS[0]:x};".encode() in stop
        assert b"10:%02x" % 2 in stop  # the PC's low byte comes with the stop
        assert world.byte() == 2 and world.ask("position") == {
            **world.ask("position"), "number": 2, "moves": 1, "label": "l2",
        }  # fmt: skip
        assert world.open_places() == [2]


def test_a_move_at_once() -> None:
    with travelling() as world:
        assert world.ask("goto", number=3, now=True)["number"] == 3
        assert world.byte() == 3 and world.open_places() == [3]
        assert b"03" in world.send("g")


def test_backward_step_by_step_until_the_beginning() -> None:
    with travelling() as world:
        world.ask("goto", number=2, now=True)
        for number in (1, 0):
            assert world.send("bc").startswith(b"T00")
            assert world.byte() == number
        assert world.send("bc").startswith(b"T05replaylog:begin;")
        assert world.byte() == 0 and world.open_places() == [0]


def test_backward_after_running_on_is_to_the_present_snapshot() -> None:
    with travelling() as world:
        world.ask("goto", number=2, now=True)
        world.send("vCont;c")
        assert world.send("bc").startswith(b"T00")
        assert world.ask("position")["number"] == 2 and world.ask("position")["moves"] == 2
        assert b"changed pages of snapshot 2 forgotten" not in world.client.console
        world.send("bc")
        assert world.ask("position")["number"] == 1


def test_a_call_is_no_running_on() -> None:
    with travelling() as world:
        world.ask("goto", number=2, now=True)
        world.ask("call-begin", address="0x400000")
        world.send("vCont;c")
        world.ask("call-end")
        world.send("bc")
        assert world.ask("position")["number"] == 1


def test_a_resume_forgets_a_prepared_move() -> None:
    with travelling() as world:
        world.ask("goto", number=2)
        world.send("vCont;c")
        assert world.open_places() == [0]
        world.send("bc")
        assert world.ask("position")["number"] == 0
        world.ask("goto", number=3)
        world.ask("stay")
        assert world.open_places() == [0]


def test_a_snapshot_that_cannot_be_opened() -> None:
    with travelling() as world:
        world.trace.broken = {1: "snapshot 1: its page table is damaged"}
        with pytest.raises(UffdError, match="page table is damaged"):
            world.ask("goto", number=1)
        world.ask("goto", number=2, now=True)
        assert world.send("bc").startswith(b"T00")
        assert b"page table is damaged" in world.client.console
        assert world.byte() == 2 and world.open_places() == [2]
        with pytest.raises(UffdError, match="no snapshot 9"):
            world.ask("goto", number=9)


@pytest.mark.parametrize("number", ["1", None, True, 1.5, [1]])
def test_a_number_that_is_none(number: object) -> None:
    with travelling() as world, pytest.raises(UffdError, match="not a whole number"):
        world.ask("goto", number=number)


def test_breakpoints_stay_inserted() -> None:
    with travelling() as world:
        assert world.send(f"Z0,{CODE + 8:x},1") == b"OK"
        assert world.send(f"Z2,{DATA:x},4") == b"OK"
        world.ask("goto", number=1, now=True)
        assert sorted(world.made[-1].breakpoints) == [(0, CODE + 8, 1), (2, DATA, 4)]
        assert world.send(f"z0,{CODE + 8:x},1") == b"OK"
        world.send("bc")
        assert world.made[-1].breakpoints == [(2, DATA, 4)]


def test_a_watched_value_that_changed_is_told() -> None:
    with travelling() as world:
        world.ask("goto", number=2, now=True)
        world.send(f"Z2,{DATA:x},1")
        assert f"T05watch:{DATA:x};".encode() in world.send("bc")
        world.send(f"z2,{DATA:x},1")
        world.send(f"Z2,{DATA + 1:x},1")
        assert world.send("bc").startswith(b"T00")


def test_threads_of_the_destination() -> None:
    other = (TIDS[0], 0x999)
    with travelling([snapshot(0), snapshot(1, other)]) as world:
        assert world.ask("goto", number=1)["threads_changed"] is True
        world.send("bc")
        listed = world.send("qfThreadInfo")
        assert listed == f"mp{PID:x}.{TIDS[0]:x},p{PID:x}.999".encode()
        assert world.send(f"Hgp{PID:x}.{TIDS[1]:x}") == b"E03"
        assert b't2457"' in world.send("qXfer:threads:read::0,1000")


def test_a_stop_is_of_a_thread_that_gdb_has_resumed() -> None:
    """gdb fails at an assertion otherwise (inline-frame.c)."""
    with travelling([snapshot(0), snapshot(1, TIDS[:2])]) as world:
        world.send(f"Hgp{PID:x}.{TIDS[1]:x}")
        world.send(f"Hcp{PID:x}.{TIDS[1]:x}")
        world.ask("goto", number=1)
        assert f"thread:p{PID:x}.{TIDS[1]:x};".encode() in world.send("bc")
        world.ask("goto", number=0, now=True)
        world.send(f"Hcp{PID:x}.{TIDS[2]:x}")  # which snapshot 1 has not
        world.ask("goto", number=1)
        assert f"thread:p{PID:x}.{TIDS[2]:x};".encode() in world.send("bc")
        assert b"does not exist there" in world.client.console
        assert world.ask("position")["number"] == 0
        world.send("Hc-1")
        world.ask("goto", number=1)
        assert f"thread:p{PID:x}.{TIDS[0]:x};".encode() in world.send("bc")


def test_libraries_that_came_are_told() -> None:
    library = Mapping(0x7F0000000000, 0x7F0000001000, 5, "/lib/libx.so")
    with_library = snapshot(1)
    with_library.mappings = [*with_library.mappings, library]
    with travelling([snapshot(0), with_library, snapshot(2)]) as world:
        before = world.ask("position")["libraries"]
        assert world.ask("goto", number=1, now=True)["libraries"] != before
        assert world.ask("goto", number=2, now=True)["libraries"] == before


def test_an_excursion_leaves_its_start_as_it_was() -> None:
    with travelling() as world:
        world.send(f"X{DATA:x},1:\x63")
        world.ask("excursion")
        for number in (3, 0, 1):
            world.ask("goto", number=number, now=True)
            assert world.byte() == number
            assert 0x63 in world.open_places() and len(world.open_places()) == 2
        with pytest.raises(UffdError, match="under way already"):
            world.ask("excursion")
        assert world.ask("back")["number"] == 0
        assert world.byte() == 0x63 and world.open_places() == [0x63]
        with pytest.raises(UffdError, match="no excursion"):
            world.ask("back")


def test_an_excursion_that_goes_nowhere() -> None:
    with travelling() as world:
        world.ask("excursion")
        assert world.ask("back")["number"] == 0 and world.byte() == 0


def test_an_excursion_is_made_on_the_clients_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it tells one; afterwards wherever the scheduler likes."""
    asked: List[Set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: asked.append(set(cpus)))
    usual = os.sched_getaffinity(0)
    with travelling() as world:
        world.ask("excursion", cpu=4000)
        assert asked == [{4000}]
        world.ask("back")
        assert asked == [{4000}, usual]
        asked.clear()
        world.ask("excursion")
        world.ask("back")
        assert all(cpus == usual for cpus in asked)


def test_threads_do_not_end_during_an_excursion() -> None:
    """gdb would give them other numbers when they are back."""
    with travelling([snapshot(0), snapshot(1, TIDS[:1])]) as world:
        world.ask("excursion")
        world.ask("goto", number=1, now=True)
        assert world.send("qfThreadInfo").count(b",") == 2
        assert world.send(f"Hgp{PID:x}.{TIDS[2]:x}") == b"OK"
        assert world.send("g") == world.send("g") != b"E03"
        world.ask("back")
        assert world.send("qfThreadInfo").count(b",") == 2
        world.ask("goto", number=1, now=True)
        assert world.send("qfThreadInfo").count(b",") == 0


def test_the_client_goes_away_on_an_excursion() -> None:
    with travelling() as world:
        world.ask("excursion")
        world.ask("goto", number=2, now=True)  # `travelling` sees that all is closed


def other_process(number: int) -> FakeSnapshot:
    return snapshot(number, (0x4321,), pid=0x4321)


def test_another_process_takes_another_connection(tmp_path: Path) -> None:
    with travelling([snapshot(0), other_process(1)]) as world:
        move = world.ask("goto", number=1, now=True)
        assert move["reconnect"] is True
        assert world.byte() == 0  # not yet
        with pytest.raises(UffdError, match="absolute"):
            world.ask("listen", path="rsp")
        world.ask("listen", path=str(tmp_path / "rsp"))
        assert (tmp_path / "rsp").exists()
        assert world.send(f"vKill;{PID:x}") == b"OK"
        assert world.client.receive() is None
        assert world.navigator.position.number == 1 and world.open_places() == [1]
        assert isinstance(world.navigator.endpoint, Endpoint)


def test_to_another_process_only_by_goto() -> None:
    with travelling([other_process(0), snapshot(1)]) as world:
        world.ask("goto", number=1, now=True)
        with pytest.raises(UffdError, match="no move is prepared"):
            world.ask("stay")
            world.ask("listen", path="/tmp/x")
    with travelling([other_process(0), snapshot(1), snapshot(2)]) as world:
        world.navigator.prepare(2)
        world.navigator.arrive()
        world.send("bc")
        assert world.send("bc").startswith(b"T00")
        assert b"`uffd goto 0` goes there" in world.client.console


def test_what_a_move_forgets_is_counted() -> None:
    with travelling() as world:
        assert world.ask("goto", number=0, tell=True)["forgotten"] == 0
        world.made[0].alive = True
        # Of its two dirty pages one is a stack page that only gdb wrote.
        assert world.ask("goto", number=1, tell=True)["forgotten"] == 1


def test_reset_after_running_on() -> None:
    with travelling() as world:
        world.ask("goto", number=1, now=True)
        world.send("vCont;c")
        world.ask("reset")
        world.send("bc")
        assert world.ask("position")["number"] == 0


def test_facts_follow() -> None:
    smaller = snapshot(1, TIDS[:1])
    smaller.segments = smaller.segments[:1]
    with travelling([snapshot(0), smaller]) as world:
        assert world.ask("info")["threads"] == 3
        world.ask("goto", number=1, now=True)
        info = world.ask("info")
        assert (info["threads"], info["total_pages"], info["snapshot"]) == (1, 1, 1)


def test_changes() -> None:
    with travelling() as world:
        found = world.ask("changes", a=1, b=3)
        assert found["pages"] == 1 and found["same_process"] is True
        assert found["groups"] == [
            {"kind": "data", "mapping": "/usr/bin/fake", "thread": None, "pages": 1,
             "compared": 1, "bytes_changed": 1, "came": 0, "went": 0}
        ]  # fmt: skip
        (page,) = found["data"]
        assert page["ranges"] == [{"address": hex(DATA), "before": "01", "after": "03"}]
        image = world.ask("changes-image", a=1, b=3, address=hex(DATA + 5))
        assert image["start"] == hex(DATA) and image["before"][:4] == "0101"
        assert image["after"][:4] == "0301" and len(image["after"]) == 8192
        with pytest.raises(UffdError, match="no snapshot 7"):
            world.ask("changes", a=0, b=7)


def test_changes_of_pages_that_only_one_has() -> None:
    more = snapshot(0)
    start = DATA + 0x10000
    more.memory[start] = bytearray(b"x" * 4096)
    more.mappings = [*more.mappings, Mapping(start, start + 0x1000, 3)]
    with travelling([snapshot(0), more]) as world:
        (group,) = world.ask("changes", a=0, b=1)["groups"]
        assert (group["came"], group["went"], group["compared"]) == (1, 0, 0)
        (group,) = world.ask("changes", a=1, b=0)["groups"]
        assert (group["came"], group["went"]) == (0, 1)
        assert world.ask("changes-image", a=0, b=1, address=hex(start)) is None


def test_a_diversion_that_cannot_be_made_leaves_nothing_open() -> None:
    opened: List[FakeSnapshot] = []

    def make(snapshot: FakeSnapshot) -> FakeDiversion:
        opened.append(snapshot)
        if len(opened) > 1:
            raise UffdError("userfaultfd is forbidden")
        return FakeDiversion(snapshot)

    navigator = Navigator(FakeTrace([snapshot(0), snapshot(1)]), make)  # type: ignore[arg-type]
    with pytest.raises(UffdError, match="userfaultfd is forbidden"):
        navigator.prepare(1)
    assert opened[1].closed and not opened[0].closed and navigator.prepared is None
    navigator.close()
    navigator.close()
    assert opened[0].closed


def test_breakpoints_in_what_was_unmapped_stay_behind() -> None:
    """gdb has taken them for gone: they are not inserted where that is mapped again."""
    with travelling() as world:
        assert world.send(f"Z0,{CODE + 8:x},1") == b"OK"
        assert world.send(f"Z0,{CODE + 16:x},1") == b"OK"
        world.made[-1].forget_unmapped = lambda: [CODE + 8]  # type: ignore[method-assign]
        world.send("vCont;c")
        world.ask("goto", number=1, now=True)
        assert world.made[-1].breakpoints == [(0, CODE + 16, 1)]
