"""What malloc's chunk headers tell, against a program that keeps accounts of its own."""

from __future__ import annotations

from typing import Iterator

import pytest
from harness import programs
from harness.calls import Caller
from harness.cores import NoKernelCore, core_of, kernel_core

from gdb_uffd.native import lib as native
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.attribute import heap_blocks


@pytest.fixture(scope="module", params=["heaps", "heaps arena", "heaps-static"])
def core(request, tmp_path_factory):
    """Cores of the same program: its main arena, a second one, statically linked."""
    built = programs.build()
    name, *arguments = request.param.split()
    try:
        return kernel_core([str(built / name), *arguments], tmp_path_factory.mktemp(name))
    except NoKernelCore as why:
        pytest.skip(str(why))


@pytest.fixture
def caller(core) -> Iterator[Caller]:
    made = Caller(core)
    yield made
    made.close()


def told(caller: Caller) -> CallReport:
    report = caller.reports[-1]
    caller.diversion.refine(report)
    return report


def number(caller: Caller, name: str) -> int:
    raw = caller.diversion.read_memory(caller.symbol(name), 8)
    return int.from_bytes(raw, "little", signed=True)


@pytest.mark.parametrize("keep", [False, True])
def test_blocks_and_bytes_in_use(caller, keep):
    before = number(caller, "count")
    usable = caller.call("usable")
    for steps in (1, 2, 30, 500, 40):
        caller.call("mixed", steps, keep=True)
        report = told(caller)
        count, bytes_ = number(caller, "count"), caller.call("usable")
        assert report.heap is not None, report.heap_trouble
        assert report.heap.allocated - report.heap.freed == count - before, steps
        assert report.heap.allocated_bytes - report.heap.freed_bytes == bytes_ - usable, steps
        before, usable = count, bytes_
        # And the same call, undone: it must be understood from the memory kept before it.
        result = caller.call("mixed", 60)
        again = told(caller)
        assert again.heap is not None
        assert again.heap.allocated - again.heap.freed == result - before
        assert number(caller, "count") == before
        if not keep:
            caller.diversion.reset()
            before, usable = number(caller, "count"), caller.call("usable")


def test_pure_calls_leave_no_blocks(caller):
    caller.call("usable")
    report = told(caller)
    assert report.blocks == [] and report.heap is not None
    assert (report.heap.allocated, report.heap.freed) == (0, 0)
    assert report.mapped_bytes == report.unmapped_bytes == 0


@pytest.mark.parametrize("late", [False, True])
def test_room_for_an_argument_is_not_the_calls(caller, late):
    """gdb has the program's malloc make it inside of the call: so much is a mapping of its own.
    `late`: a function of the same expression has run before."""
    d = caller.diversion
    d.begin()
    if late:
        caller.enter("usable")
        d.call_end()
    d.call_begin(caller.symbol("usable"), False)
    begin = d.call_begin
    d.call_begin = lambda address, _: begin(address, True)
    caller.enter("malloc", 300_000)
    del d.call_begin
    room, popped = caller.result, d.registers(caller.tid)
    returned = popped.copy()
    returned.gpr[popped.arch.result] = room
    d.set_registers(caller.tid, returned)
    d.call_end()  # gdb pops the frame after it
    d.set_registers(caller.tid, popped)
    d.write_memory(room, b"x" * 300_000)
    caller.enter("usable")
    d.call_end()
    report = d.end(False)
    d.refine(report)
    assert room in {page.start + 16 for page in report.pages}
    assert report.heap is not None and report.heap.allocated == 0
    assert (report.mapped_bytes, report.unmapped_bytes, report.blocks) == (0, 0, [])


class Short:
    """The native module, with a walk of the heap that ends early."""

    def __getattr__(self, name: str) -> object:
        return getattr(native, name)

    def heap_span(self, *arguments: object) -> int:
        assert native.heap_span(*arguments) == 0
        return 1


def test_a_heap_of_too_many_chunks_is_told_as_not_read(caller, monkeypatch):
    """Its totals would be those of the part that was read."""
    caller.call("mixed", 20)
    monkeypatch.setattr(heap_blocks, "lib", Short())
    report = told(caller)
    assert report.heap is None and report.heap_trouble is not None
    assert (report.heap_trouble.what, report.heap_trouble.value) == ("too-many", 1 << 20)


def test_everything_since_the_snapshot(caller):
    before = number(caller, "count")
    caller.call("mixed", 50, keep=True)
    caller.call("mixed", 50, keep=True)
    report = caller.diversion.report_all()
    assert report.heap is not None, report.heap_trouble
    assert report.heap.allocated - report.heap.freed == number(caller, "count") - before


def test_each_byte_of_a_heap_page_has_its_role(caller):
    caller.call("mixed", 200)
    report = told(caller)
    for page in report.pages:
        if page.kind != "heap" or page.more_ranges:
            continue
        assert sum(len(run.changed()) for run in page.ranges) == page.bytes_changed
        for run in page.ranges:
            inside = [b for b in report.blocks if b.start <= run.address < b.start + b.size]
            assert run.role in ("", "malloc", "freed", "scratch")
            if run.role == "" and not run.kind:
                assert inside and inside[0].state in ("live", "allocated", "freed")


def test_damaged_headers_are_not_believed(caller):
    caller.call("damage", 0, keep=True)
    told(caller)
    caller.call("mixed", 1)
    report = told(caller)
    assert report.pages
    caller.call("usable")
    assert told(caller).blocks == []


@pytest.fixture
def unheaped(tmp_path) -> Iterator[Caller]:
    """A core of a process that had no heap yet."""
    try:
        made = Caller(core_of("newheap", tmp_path))
    except NoKernelCore as why:
        pytest.skip(str(why))
    yield made
    made.close()


def test_a_heap_that_a_call_begins(unheaped):
    """Its block is told; so is that what malloc noted in thread-locals is malloc's own."""
    assert unheaped.call("begin", 100, keep=True) == 1
    report = told(unheaped)
    assert report.heap is not None, report.heap_trouble
    assert (report.heap.allocated, report.heap.freed) == (2, 0)  # the cache of freed ones, and it
    assert report.heap.allocated_bytes == 0x288 + 104, report.heap
    roles = {page.kind: {run.role for run in page.ranges} for page in report.pages}
    assert roles["heap"] == {"malloc", ""} and roles["tls"] == {"malloc"}, roles
    sizes = {block.start: block.size for block in report.blocks if block.state == "allocated"}
    assert sizes == {number(unheaped, "mine"): 104}
    # Where malloc has no word of its own they stay the program's.
    unheaped.call("set_own", 7)
    (run,) = [r for p in told(unheaped).pages if p.kind == "tls" for r in p.ranges]
    assert run.role == "" and run.symbol == "own" and run.symbol_start <= run.address, run
