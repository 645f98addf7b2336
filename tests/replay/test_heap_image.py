"""glibc's whole heap against what malloc itself says of it, and with damage of each kind."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from harness import SLOWNESS, programs
from harness.calls import Caller
from harness.cores import NoKernelCore, kernel_core

from gdb_uffd.protocol.codec import from_json, to_json
from gdb_uffd.protocol.heap import BlockReport, HeapReport
from gdb_uffd.replay.attribute import heap_report

MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost")  # fmt: skip


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Callable[..., Path]:
    made: Dict[Any, Path] = {}

    def make(*arguments: str, program: str = "blocks") -> Path:
        key = (program, *arguments)
        if key not in made:
            folder = tmp_path_factory.mktemp("blocks")
            try:
                made[key] = kernel_core([str(programs.build() / program), *arguments], folder)
            except NoKernelCore as why:
                pytest.skip(str(why))
        return made[key]

    return make


@pytest.fixture
def opened(core) -> Iterator[Callable[..., Caller]]:
    callers: List[Caller] = []

    def open_(*arguments: str, program: str = "blocks") -> Caller:
        callers.append(Caller(core(*arguments, program=program)))
        return callers[-1]

    yield open_
    for caller in callers:
        caller.close()


def word(caller: Caller, name: str, index: int = 0) -> int:
    raw = caller.diversion.read_memory(caller.symbol(name) + 8 * index, 8)
    return int.from_bytes(raw, "little")


def overview(caller: Caller) -> HeapReport:
    heap = heap_report.overview(caller.diversion)
    assert from_json(HeapReport, to_json(heap)) == heap
    return heap


def block(caller: Caller, address: int) -> BlockReport:
    told = heap_report.block(caller.diversion, address)
    assert from_json(BlockReport, to_json(told)) == told
    return told


def info(caller: Caller) -> Dict[str, int]:
    """struct mallinfo2 (mallinfo(3)), as the program asked for it in the end."""
    raw = caller.diversion.read_memory(caller.symbol("info"), 80)
    return dict(zip(MALLINFO, struct.unpack("<10Q", raw)))


@pytest.mark.parametrize(
    "arguments, program",
    [(["plain"], "blocks"), (["plain"], "blocks-static"), (["threads", "5"], "blocks"),
     (["many", "20000"], "blocks")],
)  # fmt: skip
def test_the_numbers_are_mallocs_own(opened, arguments, program):
    caller = opened(*arguments, program=program)
    heap, said = overview(caller), info(caller)
    assert heap.damage == [] and heap.damage_count == 0
    assert heap.allocator.name == "glibc" and heap.caches_missing == []

    def lists(*kinds: str) -> List[int]:
        found = [each for each in heap.lists if each.kind in kinds]
        return [sum(each.blocks for each in found), sum(each.bytes for each in found)]

    cached, fast = lists("tcache"), lists("fastbin")
    binned = lists("unsorted", "small", "large")
    arenas = heap.arenas
    assert sum(a.system_bytes for a in arenas) == said["arena"]
    assert fast == [said["smblks"], said["fsmblks"]]
    assert binned[0] + len(arenas) == said["ordblks"]  # each top is one
    top = sum(a.top_bytes for a in arenas)
    assert fast[1] + binned[1] + top == said["fordblks"]
    # What they have in use: theirs counts the blocks in caches.  Of another arena its own struct
    # malloc_state and heap_info are in use, too.
    used = sum(a.used_bytes for a in arenas) + cached[1]
    own = sum(a.system_bytes - sum(r.end - r.start for r in a.ranges) for a in arenas)
    assert used + own == said["uordblks"]
    assert arenas[0].main and arenas[0].top_bytes == said["keepcost"]
    assert (heap.mapped, heap.mapped_said) == (said["hblks"], said["hblks"])
    assert heap.mapped_said_bytes == said["hblkhd"] >= heap.mapped_bytes > said["hblkhd"] - 8192


def test_a_block_in_each_kind_of_list(opened):
    caller = opened("plain")
    for name, kind in (("in_tcache", "tcache"), ("in_fastbin", "fastbin"), ("in_small", "small"),
                       ("in_unsorted", "unsorted"), ("in_large", "large")):  # fmt: skip
        told = block(caller, word(caller, name))
        assert told.block is not None and told.block.list is not None, name
        assert (told.block.state, told.block.list.kind) == ("free", kind), name
        size = told.block.size + 8
        low, high = told.block.list.low, told.block.list.high
        assert low <= size and (not high or size < high), name
        assert [ref.address for ref in told.references] == [caller.symbol(name)], name
    for name, alignment in (("mapped", 16), ("aligned", 8192)):
        told = block(caller, word(caller, name) + 5000)
        assert told.block is not None and told.block.state == "mapped"
        assert told.block.start == word(caller, name) and not told.block.start % alignment
    told = block(caller, word(caller, "used"))
    assert told.block is not None and told.block.size == word(caller, "usable_of_used")


@pytest.mark.parametrize("how, heaps", [("grow", 2), ("break", 1)])
def test_a_heap_that_does_not_go_on(opened, how, heaps):
    """A thread's arena of several heaps, and a main heap with memory of others in between, end in
    fenceposts."""
    caller = opened(how)
    heap, said = overview(caller), info(caller)
    assert heap.damage == []
    assert max(len(arena.ranges) for arena in heap.arenas) == heaps
    assert sum(arena.system_bytes for arena in heap.arenas) == said["arena"]
    many, count = word(caller, "many"), word(caller, "many_count")
    image = heap_report.image_of(caller.diversion)
    for index in range(count):
        at = int.from_bytes(caller.diversion.read_memory(many + 8 * index, 8), "little")
        found = image.block_around(at)
        assert found is not None and found.start == at and found.state == "used", index
    for _ in range(3):  # and a report goes over the ends
        caller.call("move_break", keep=True)
        caller.diversion.refine(caller.reports[-1])
        report = caller.reports[-1]
        assert report.heap is not None, report.heap_trouble


def test_who_holds_a_block(opened):
    caller = opened("threads", "3")
    item = word(caller, "cache", 3)  # items[2]
    inner = int.from_bytes(caller.diversion.read_memory(item + 16, 8), "little")
    told = block(caller, inner)
    steps = [(ref.kind, ref.value) for ref in told.chain]
    assert steps == [("data", item), ("heap", inner)]
    assert told.chain[1].address == item + 16
    # Only a thread-local of a thread leads to its block.
    heap = overview(caller)
    tids = {tid for arena in heap.arenas for tid in arena.tids}
    assert tids == {thread.tid for thread in caller.snapshot.threads} and len(tids) == 4
    assert len(heap.arenas) == 4 and all(len(a.tids) == 1 for a in heap.arenas)
    held = [
        told
        for arena in heap.arenas
        if not arena.main
        for told in [block(caller, arena.ranges[0].start + 0x290 + 16)]
    ]
    assert {ref.tid for each in held for ref in each.chain} == tids - {caller.tid} - {
        heap.arenas[0].tids[0]
    }
    assert {(ref.name, ref.start - ref.address) for each in held for ref in each.chain} == {
        ("mine", 0)
    }


def test_who_still_points_to_freed_memory(opened):
    caller = opened("plain")
    stale = word(caller, "stale")
    told = block(caller, stale)
    assert told.block is not None and told.block.state == "free"
    places = {caller.symbol("stale"), caller.symbol("cache") + 8 + 4 * 8}
    assert {ref.address for ref in told.references} == places
    # And from the other side: written into a block, it points into one that is free.
    used = word(caller, "used")
    caller.diversion.write_memory(used + 16, stale.to_bytes(8, "little"))
    again = block(caller, used)
    assert [(ref.address, ref.value) for ref in again.freed] == [(used + 16, stale)]
    assert again.freed[0].block is not None and again.freed[0].block.start == stale


EXPECTED = {
    "overflow": ("size-beyond", "input"),
    "off-by-one": ("size-small", "input"),
    "use-after-free": ("link-unaligned", ""),
    "double-free": ("link-loop", ""),
    "top": ("top", ""),
    "bin": ("link-back", ""),
    "loop": ("link-loop", ""),
    "prev-size": ("prev-size", ""),
}


@pytest.mark.parametrize("damage", EXPECTED)
def test_damage_is_told_with_its_place(opened, damage):
    caller = opened(damage)
    heap = overview(caller)
    what, before = EXPECTED[damage]
    first = heap.damage[0]
    if damage == "use-after-free" and first.leads is not None:
        # Where the word leads depends on its page (PROTECT_PTR): one page in 16 makes it aligned.
        at = word(caller, "in_tcache")
        assert first.leads == (at >> 12) ^ 0x4141414141414141
        what = "link-unreadable" if first.leads % 16 == 0 else what
    assert first.what == what
    if before:
        text = int.from_bytes(caller.diversion.read_memory(word(caller, "input") + 8, 8), "little")
        assert first.before is not None and first.before.start == text
        assert first.block == text + 32
        assert first.value == (0x4141414141414141 if damage == "overflow" else 0)
        # What lies behind the damage is known again from the next block that a list tells of.
        assert 0 < sum(r.unread for r in heap.arenas[0].ranges) < 4096
        assert block(caller, word(caller, "in_large")).block is not None
        told = block(caller, text)
        assert [each.what for each in told.damage] == [what]
    if damage == "use-after-free":
        assert first.block == word(caller, "in_tcache") and first.value == 0x4141414141414141
        key = heap.damage[1]
        assert (key.what, key.value) == ("tcache-key", 0x4242424242424242)
    if damage == "bin":
        assert first.block == word(caller, "in_unsorted") and first.value == caller.symbol("cache")
    if damage == "prev-size":
        assert first.block == word(caller, "in_large") and first.expected == 0x1230


def test_no_process_is_needed(opened):
    caller = opened("plain")
    overview(caller)
    block(caller, word(caller, "used"))
    assert caller.diversion.info()["vessel_pid"] is None and not caller.diversion.alive


def test_a_diversion_has_a_heap_of_its_own(opened):
    caller = opened("plain")
    before = overview(caller)
    address = caller.call("malloc", 5000, keep=True)
    told = block(caller, address)
    assert told.block is not None and told.block.state == "used" and told.block.size >= 5000
    after = overview(caller)
    assert after.arenas[0].used == before.arenas[0].used + 1
    caller.diversion.reset()
    assert overview(caller) == before


def damage_at_random(raw: bytearray, seed: int) -> None:
    """Words of the heap that are plausible and wrong: sizes that wrap, links to other links."""
    import random

    draw = random.Random(seed)
    starts = [at for at in range(0, len(raw) - 8, 8) if any(raw[at : at + 8])]
    for _ in range(draw.choice((1, 3, 20, 200))):
        at = draw.choice(starts)
        raw[at : at + 8] = draw.choice(
            (
                raw[(other := draw.choice(starts)) : other + 8],
                (0xFFFFFFFFFFFFFFF0 | draw.randrange(16)).to_bytes(8, "little"),
                draw.randrange(1 << 16).to_bytes(8, "little"),
                bytes(8),
                draw.randbytes(8),
            )
        )


@pytest.mark.parametrize("seed", range(40))
def test_hostile_heaps_end_in_time(opened, seed):
    caller = opened("plain")
    heap = overview(caller)
    low = heap.arenas[0].ranges[0].start
    raw = bytearray(caller.diversion.read_memory(low, 0x4000))
    damage_at_random(raw, seed)
    caller.diversion.write_memory(low, bytes(raw))
    if seed % 4 == 3:  # the arena's own words, too
        at = heap.arenas[0].address
        state = bytearray(caller.diversion.read_memory(at, 2200))
        damage_at_random(state, seed)
        caller.diversion.write_memory(at, bytes(state))
    started = time.monotonic()
    told = overview(caller)
    assert len(told.damage) <= told.damage_count
    for name in ("used", "in_large", "stale", "mapped"):
        block(caller, word(caller, name))
    assert time.monotonic() - started < 10 * SLOWNESS


@pytest.mark.parametrize("program", ["blocks", "blocks-static"])
@pytest.mark.parametrize("damage", ["overflow", "off-by-one"])
def test_a_report_finds_the_heap_that_is_looked_at(opened, damage, program):
    """One mechanism: what is damaged hides the heap from neither, in a static program too, whose
    thread-locals stand before the first chunk."""
    caller = opened(damage, program=program)
    first = overview(caller).damage[0]
    caller.call("malloc", 5000)
    report = caller.reports[-1]
    caller.diversion.refine(report)
    assert report.heap_trouble is not None
    assert (report.heap_trouble.what, report.heap_trouble.block) == (first.what, first.block)
    assert report.heap_trouble.before == first.before


def _on_the_heap(caller: Caller) -> Dict[int, str]:
    """Of the last call: each word of a heap's page that changed, and its role."""
    report = caller.reports[-1]
    caller.diversion.refine(report)
    assert report.heap_trouble is None
    runs = [run for page in report.pages if page.kind == "heap" for run in page.ranges]
    return {
        at: run.role
        for run in runs
        for at in range(run.address & -8, run.address + len(run.before), 8)
    }


@pytest.mark.parametrize("program", ["blocks", "blocks-static"])
def test_what_malloc_leaves_in_a_block_is_its_own(opened, program):
    """The key that it clears, the links of the bins that the block went through."""
    caller = opened("plain", program=program)
    for name in ("in_tcache", "in_fastbin", "in_unsorted", "in_small", "in_large"):
        address = word(caller, name)
        told = block(caller, address).block
        assert told is not None
        given = -1
        for _ in range(64):
            given = caller.call("malloc", told.size, keep=True)
            roles = _on_the_heap(caller)
            assert set(roles.values()) <= {"malloc"}, (name, hex(given), roles)
            if given == address:
                break
        assert given == address or name == "in_large", name
