"""A stack that is used up gets room for calls, in the process that is made and nowhere else."""

from __future__ import annotations

import subprocess

import pytest
from harness import ROOT
from harness.calls import Caller
from harness.cores import kernel_core
from harness.telling import message

from gdb_uffd.native import lib
from gdb_uffd.protocol.model import Mapping
from gdb_uffd.replay import stacks


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = tmp_path_factory.mktemp("overflow") / "overflow"
    source = ROOT / "tests" / "programs" / "overflow.c"
    subprocess.run(["cc", "-g", "-O0", "-pthread", "-o", made, source], check=True)
    return made


@pytest.mark.parametrize(
    "arguments", [[], ["thread"], ["beside"]], ids=["main", "thread", "beside"]
)
def test_calls_run_below_it(program, tmp_path, arguments, monkeypatch):
    caller = Caller(kernel_core([str(program), *arguments], tmp_path))
    vessel, writers = caller.diversion.vessel, []
    real = vessel.write
    monkeypatch.setattr(
        vessel, "write", lambda at, data, by: writers.append(by) or real(at, data, by)
    )
    try:
        before = caller.diversion.mappings()
        sp = caller.snapshot.threads[0].registers.sp
        for _ in range(2):
            assert caller.call("bump", 3) == 44
            (remark,) = [r for r in caller.reports[-1].remarks if r.kind == "own-stack"]
            assert remark.tid == caller.tid and remark.size > 0
        assert caller.call("format", 7) == 7
        kinds = {page.kind for page in caller.reports[-1].pages if page.start < sp}
        assert kinds <= {"stack", "data", "tls", "heap"}
        assert writers and set(writers) <= {lib.WRITER_GDB, lib.WRITER_ASSIGNMENT}
        assert caller.call("bump", 1, keep=True) == 42
        assert caller.diversion.registers(caller.tid).sp == sp
        stop = caller.start("deep", 0)  # and it has an end
        assert stop.signal == 11 and "the stack is used up" in message(stop)
        caller.diversion.call_end()
        caller.diversion.end(False)
        caller.diversion.reset()
        assert caller.diversion.mappings() == before
        assert caller.call("bump", 1) == 42
    finally:
        caller.close()


def mapping(start: int, end: int, prot: int = 3, name: str = "") -> Mapping:
    return Mapping(start << 12, end << 12, prot, name)


class Fake:
    """What `stacks.rooms` looks at."""

    def __init__(self, mappings, *pointers):
        self.mappings = mappings
        registers = [type("Registers", (), {"sp": sp}) for sp in pointers]
        self.threads = [
            type("Thread", (), {"registers": r, "tid": i + 1}) for i, r in enumerate(registers)
        ]


def test_where_the_room_lies():
    low, stack, guard = mapping(100, 200), mapping(5000, 7048), mapping(4999, 5000, 0)
    for sp, tid in ((0x5000 << 12, 0), ((5000 << 12) + 100, 1), ((5000 << 12) - 600, 1)):
        rooms = stacks.rooms(Fake([low, guard, stack], sp))
        assert [room.tid for room in rooms.values()] == ([tid] if tid else [])
    (room,) = stacks.rooms(Fake([low, guard, stack], 5000 << 12)).values()
    assert (room.start >> 12, room.end >> 12) == (5000 - 2048, 5000)
    near, far = mapping(4900, 4999), mapping(1, 4800)
    assert not stacks.rooms(Fake([far, near, guard, stack], 5000 << 12))  # nothing is free
    below, elsewhere = sorted(
        stacks.rooms(Fake([near, guard, stack], 5000 << 12)).values(), key=lambda room: room.top
    )
    assert below.end <= 4900 << 12 and below.end - below.start == stacks.LIMIT
    assert (elsewhere.start >> 12, elsewhere.end >> 12) == (4999, 5000)
    assert elsewhere.top == below.end
    # Without a guard page, or with too little of it left, gdb would push into the neighbour.
    assert not stacks.rooms(Fake([mapping(4900, 5000), stack], 5000 << 12))
    assert not stacks.rooms(Fake([near, guard, stack], (4999 << 12) + 256))
    two = [near, guard, stack, mapping(7048, 7049, 0), mapping(7049, 9000)]
    made = stacks.rooms(Fake(two, 5000 << 12, 7049 << 12)).values()
    assert len({room.end for room in made}) == 4
    stretches = sorted((room.start, room.end) for room in made)
    assert all(a[1] <= b[0] for a, b in zip(stretches, stretches[1:]))
    (room,) = stacks.rooms(Fake([mapping(4800, 4900), guard, stack], 5000 << 12)).values()
    assert (room.start >> 12, room.end >> 12) == (4916, 5000)


def test_a_stack_that_may_grow_is_not_used_up():
    found = stacks.rooms(Fake([mapping(10, 20), mapping(5000, 5010, 3, "[stack]")], 5001 << 12))
    (room,) = found.values()
    assert room.tid == 0 and room.start >> 12 == 5010 - 2048
