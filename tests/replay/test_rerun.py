"""The last call once more: every write to one object, against what the program notes itself."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from contextlib import closing
from typing import List, Tuple

import pytest
from harness.calls import Caller, Client

from gdb_uffd.native import lib
from gdb_uffd.protocol.ends import RerunDifference
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.interface import Resume
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.rerun.play import COUNTED_MAX, Rerun
from gdb_uffd.replay.rerun.writes import PlayEnd, Running, Write

LARGE = 20000 * 8

SIGPROCMASK, MADVISE = (syscalls.by_name()[n].number for n in ("rt_sigprocmask", "madvise"))


@pytest.fixture(scope="session")
def writes_core(all_cores):
    return all_cores.writes()


@pytest.fixture
def caller(writes_core):
    made = Caller(writes_core)
    yield made
    made.close()


def again(
    caller: Caller, name: str, size: int, offset: int = 0, first: bool = False, limit: int = 1000
) -> Tuple[List[Write], PlayEnd]:
    """The writes to `size` bytes at the symbol `name` in the last call, run once more."""
    rerun = Rerun(caller.diversion, caller.symbol(name) + offset, size, first, limit)
    try:
        told: List[Write] = []
        while True:
            event = rerun.next()
            if isinstance(event, PlayEnd):
                return told, event
            if isinstance(event, Write):
                told.append(event)
            else:
                assert isinstance(event, Running)
    finally:
        rerun.close()


def numbers(told: List[Write], size: int = 4) -> List[Tuple[int, int]]:
    """(before, after) of an object that is told whole."""
    return [
        (int.from_bytes(w.before[:size], "little"), int.from_bytes(w.after[:size], "little"))
        for w in told
    ]


def notes(caller: Caller) -> List[Tuple[int, int, int]]:
    """What the program noted of its writes: address, size, value."""
    count = int.from_bytes(caller.diversion.read_memory(caller.symbol("noted"), 4), "little")
    data = caller.diversion.read_memory(caller.symbol("notes"), 24 * count)
    return list(struct.iter_unpack("<3Q", data))


@pytest.mark.parametrize("keep", [False, True])
def test_every_write_in_order(caller, keep):
    assert caller.call("count", 3, keep=keep) == 47
    told, end = again(caller, "counter", 4)
    assert numbers(told) == [(41, 42), (42, 44), (44, 47)]
    assert end.writes == 3 and not end.differs and end.compared and not end.cut
    exact = not caller.snapshot.arch.traps_after_writes
    assert all(w.by == "program" and w.exact == exact for w in told)
    now = int.from_bytes(caller.diversion.read_memory(caller.symbol("counter"), 4), "little")
    assert now == (47 if keep else 41)  # the session's own memory is as it was


def test_the_state_before_a_call_has_what_was_kept_before(caller):
    caller.call("count", 2, keep=True)
    caller.call("count", 1)
    assert numbers(again(caller, "counter", 4)[0]) == [(44, 45)]
    caller.call("count", 1, keep=True)
    assert numbers(again(caller, "counter", 4)[0]) == [(44, 45)]
    caller.call("count", 1, keep=True)
    assert numbers(again(caller, "counter", 4)[0]) == [(45, 46)]


@pytest.mark.parametrize("keep", [False, True])
def test_memory_that_gdb_wrote_since_is_as_it_was_before(caller, keep):
    caller.call("count", 1, keep=keep)
    caller.diversion.write_memory(caller.symbol("counter"), (1000).to_bytes(4, "little"))
    told, end = again(caller, "counter", 4)
    assert numbers(told) == [(41, 42)]
    assert not end.compared and end.why == "written"
    now = caller.diversion.read_memory(caller.symbol("counter"), 4)
    assert int.from_bytes(now, "little") == 1000


def test_the_first_write_only(caller):
    caller.call("count", 3)
    told, end = again(caller, "counter", 4, first=True)
    assert numbers(told) == [(41, 42)]
    assert end.cut and not end.compared


def test_a_write_of_what_is_there_is_a_write(caller):
    caller.call("same")
    told, _ = again(caller, "counter", 4)
    assert numbers(told) == [(41, 41), (41, 42), (42, 42)]
    assert [w.high - w.low for w in told] == [0, 1, 0]


def test_neighbours_do_not_count(caller):
    caller.call("busy", 5000)
    assert numbers(again(caller, "counter", 4)[0]) == [(41, 5000)]


@pytest.mark.parametrize("keep", [False, True])
def test_a_large_object_by_write_protection(caller, keep):
    caller.call("spread", 331, keep=True)
    noted = notes(caller)
    assert len(noted) == 61
    caller.diversion.reset()
    caller.call("spread", 331, keep=keep)
    told, end = again(caller, "large", LARGE)
    assert end.writes == len(told) == len(noted) and not end.differs
    for write, (address, size, value) in zip(told, noted):
        assert address <= write.low < write.high <= address + size
        at = address - write.window
        assert write.after[at : at + size] == value.to_bytes(size, "little")
        assert write.before[at : at + size] == bytes(size)
        assert write.exact
    assert len({w.pc for w in told}) == 1


def test_a_repeated_instruction_is_one_write(caller):
    assert caller.call("fill", 7) == 7
    told, end = again(caller, "bytes", 8192)
    start = caller.symbol("bytes")
    assert [(w.low - start, w.high - start) for w in told] == [(10, 6010), (9, 10)]
    assert not end.differs


def test_one_instruction_that_writes_two_pages(caller):
    caller.call("across")
    told, end = again(caller, "large", LARGE)
    assert len(told) == 1 and not end.differs
    assert told[0].high - told[0].low == 8 and told[0].low % 4096 == 4092


def test_what_the_kernel_writes(caller):
    caller.call("by_kernel")
    told, end = again(caller, "mask", 8)
    assert [w.by for w in told] == ["program", "kernel", "kernel", "program"]
    assert [w.call for w in told] == [-1, SIGPROCMASK, SIGPROCMASK, -1]
    values = numbers(told, 8)
    assert [after for _, after in values][:2] == [1, 0] and values[3][1] == 2
    assert values[2][1] & 1 << (signal.SIGUSR1 - 1) and not end.differs


def test_what_the_kernel_writes_into_a_large_object(caller):
    caller.call("by_kernel_into_large")
    told, end = again(caller, "large", LARGE)
    assert [w.by for w in told] == ["program", "kernel", "program"]
    start = caller.symbol("large")
    assert [(w.low - start) // 8 for w in told] == [5000, 6000, 7000]
    assert not end.differs


def test_what_the_kernel_empties(caller):
    assert caller.call("drops") == 0
    told, end = again(caller, "large", LARGE)
    assert [(w.by, w.call) for w in told] == [("program", -1), ("kernel", MADVISE), ("program", -1)]
    at = told[0].low
    assert [w.low for w in told] == [at, at, at + 8] and at % 4096 == 0
    assert [w.after[at - w.window] for w in told] == [1, 0, 0] and not end.differs


def test_the_second_run_differs(caller):
    caller.call("different")
    told, end = again(caller, "counter", 4)
    assert len(told) == 1
    assert end.compared and end.differs == RerunDifference("registers")


def test_pages_written_with_what_they_held_do_not_differ(caller):
    for _ in range(3):  # of 39 pages each run writes another
        caller.call("wanders")
        told, end = again(caller, "counter", 4)
        assert not told and end.compared and not end.differs, end


def test_pages_that_came_out_otherwise_are_counted(caller):
    """Of 39 pages each run empties another, where there is something to empty: in every second."""
    large = caller.symbol("large")
    filled = [large + 8 * (index * 512 + 300) for index in range(0, 39, 2)]
    seen = set()
    for _ in range(100):
        for at in filled:
            caller.diversion.write_memory(at, b"x")
        caller.call("wanders")
        differs = again(caller, "counter", 4)[1].differs
        if not differs:
            continue
        assert differs.kind == "pages" and differs.address in {at & -4096 for at in filled}, differs
        seen.add(differs.count)
        if seen == {1, 2}:
            return
    raise AssertionError(seen)


def test_what_is_printed_is_passed_on_once(caller):
    """As it comes, and not by the second run."""
    d, client = caller.diversion, Client()
    text = caller.symbol("bytes")
    d.write_memory(text, b"said\0")
    assert caller.start("say", text, client).breakpoint == "swbreak"
    d.call_end()
    assert client.written == b"said\n"
    report = d.end(True)
    assert report.output == "said\n" and report.streamed == 5
    assert len(again(caller, "counter", 4)[0]) == 1
    assert client.written == b"said\n"


def test_a_call_that_crashes(caller):
    caller.start("faults")
    caller.diversion.call_end()
    caller.diversion.end(False)
    told, end = again(caller, "counter", 4)
    assert numbers(told) == [(41, 1)]
    assert not end.differs and not end.cut


def test_more_writes_than_are_listed(caller):
    caller.call("busy", 50)
    told, end = again(caller, "beside", 4, limit=10)
    assert len(told) == 10 and end.writes == 50 and not end.differs


def test_more_writes_than_are_counted(caller):
    caller.call("busy", COUNTED_MAX + 5000)
    rerun = Rerun(caller.diversion, caller.symbol("beside"), 4, False, 1)
    try:
        event = rerun.next()
        while not isinstance(event, PlayEnd):
            event = rerun.next()
        assert rerun.gave_up and event.writes == COUNTED_MAX + 1
        assert not event.differs  # it was run to its end
    finally:
        rerun.close()


def test_the_layout_that_a_kept_call_changed(caller):
    before = list(caller.diversion.mappings())
    caller.call("maps", keep=True)
    assert len(caller.diversion.mappings()) != len(before)
    _, end = again(caller, "counter", 4)
    assert not end.writes and not end.differs
    caller.call("push", 5, keep=True)
    told, end = again(caller, "head", 8)
    assert len(told) == 1 and not end.differs


def test_memory_that_the_call_maps_itself(caller):
    place = caller.call("maps", keep=True)
    assert place == 2
    new = [p for p in caller.reports[-1].pages if p.kind == "anonymous"]
    rerun = Rerun(caller.diversion, new[0].start, 1 << 16, False, 100)
    try:
        events = []
        while not isinstance(event := rerun.next(), PlayEnd):
            events.append(event)
        assert [e.after[e.low - e.window] for e in events] == [1, 2, 3, 4]
        assert not event.differs
    finally:
        rerun.close()


def test_nothing_to_run_again(caller):
    with pytest.raises(UffdError, match="nothing has run"):
        again(caller, "counter", 4)
    caller.call("count", 1)
    caller.diversion.reset()
    with pytest.raises(UffdError, match="as recorded again"):
        again(caller, "counter", 4)


def test_objects_that_cannot_be_watched(caller):
    caller.call("count", 1)
    for size in (-1, (64 << 20) + 1, 1 << 63):
        with pytest.raises(UffdError, match="cannot be watched"):
            again(caller, "counter", size)


def test_addresses_that_no_program_has(caller):
    """The page behind the last one has no address."""
    caller.call("count", 1)
    for address in (1 << 63, (1 << 64) - 4096, (1 << 64) - 1047, (1 << 64) - 4, (1 << 63) - 3):
        with pytest.raises(UffdError, match="no address that a program can write to"):
            Rerun(caller.diversion, address, 4, False, 1)
    Rerun(caller.diversion, (1 << 63) - 4, 4, False, 1).close()


def test_an_object_at_an_address_that_is_not_mapped(caller):
    caller.call("count", 1)
    for address, size in ((0x1000, 4), (0x1000, 9000), ((1 << 47) - 4096, 4096)):
        rerun = Rerun(caller.diversion, address, size, False, 10)
        try:
            event = rerun.next()
            assert isinstance(event, PlayEnd) and not event.writes and not event.differs
        finally:
            rerun.close()


def test_what_gdb_writes_at_the_border_of_what_is_mapped(caller):
    """What is not mapped on one side of it reads as zeros."""
    d = caller.diversion
    parts = [m for m in d.mappings() if m.prot & mmap.PROT_WRITE]
    ends = {m.end for m in d.mappings()}
    low = next(m.start for m in parts if m.start not in ends and d.read_memory(m.start, 8))
    before = d.read_memory(low, 8)
    d.begin()
    d.write_memory(low, b"12345678")
    caller.enter("count", 1)
    d.call_end()
    d.end(False)
    rerun = Rerun(d, low - 16, 24, False, 10)
    with closing(rerun):
        event = rerun.next()
    assert isinstance(event, Write) and event.by == "assignment"
    assert event.before == bytes(16) + before and event.after == bytes(16) + b"12345678"


def test_a_view_ends_with_its_diversion(caller):
    """It read through a null pointer."""
    caller.call("count", 1)
    view = caller.diversion.view(False, False)
    assert view.word(caller.symbol("counter")) is not None
    caller.diversion.close()
    assert view.word(caller.symbol("counter")) is None


class Impatient(Client):
    """Wants the run to end as soon as it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.read, write = os.pipe()
        os.write(write, b"x")
        os.close(write)

    def fileno(self) -> int:
        return self.read

    def interrupt_requested(self) -> bool:
        return bool(os.read(self.read, 1))

    def close(self) -> None:
        os.close(self.read)


def test_a_stop_that_went_with_a_sigcont_is_asked_for_again(caller):
    """SIGCONT takes SIGSTOPs that are pending with it (signal(7)), whoever sends it: no Ctrl-C and
    no time limit ended a call any more from then on."""
    vessel = caller.diversion.vessel.native
    caller.call("count", 1)
    assert lib.task_interrupt(vessel) == 0
    os.kill(vessel.pid, signal.SIGCONT)
    assert caller.start("idle").signal == signal.SIGCONT
    with closing(Impatient()) as client:
        stop = caller.diversion.resume(Resume(caller.tid, "c"), client)
    assert stop.signal == signal.SIGINT
    caller.diversion.call_end()
    caller.diversion.end(False)


def test_a_run_that_was_interrupted_is_ended_too(caller):
    """The first run ends by SIGINT, after no time that a second one could tell."""
    with closing(Impatient()) as client:
        stop = caller.start("idle", client=client)
    assert stop.signal == signal.SIGINT
    caller.diversion.call_end()
    caller.diversion.end(False)
    told, end = again(caller, "counter", 4)
    assert not told and not end.cut and end.differs != RerunDifference("interrupted")
    assert not end.compared and end.why == "interrupted"  # `beside` is another number
