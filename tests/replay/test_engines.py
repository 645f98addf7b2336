"""Every engine tells the same pages and the same bytes, and those are the right ones."""

from __future__ import annotations

import ctypes
import mmap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
from harness import EMULATED
from harness.calls import Caller
from harness.cores import NoKernelCore, kernel_core
from harness.steps import ARENA, ARENA_PAGES, PAGE, Cell, Seen, Step, World, encode
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from gdb_uffd.protocol.model import ENGINES, TELLING, CallReport, UffdError
from gdb_uffd.replay.trackers import kernel


def soft_dirty_is_kept() -> bool:
    """Whether this kernel sets bit 55 of a pagemap entry: tried on a page of our own."""
    with mmap.mmap(-1, PAGE) as area:
        area[0] = 1
        Path("/proc/self/clear_refs").write_text("4", encoding="ascii")
        area[0] = 2
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        with open("/proc/self/pagemap", "rb") as file:
            file.seek(address // PAGE * 8)
            entry = int.from_bytes(file.read(8), "little")
    return bool(entry >> 55 & 1)


OFFERED = [  # by the kernel, whatever our own trial says of them: none leaves the comparison unseen
    *["wp-sync"] * bool(kernel().offer.features & 1),
    *["wp-async"] * bool(kernel().offer.features & 1 << 15),
    *["soft-dirty"] * soft_dirty_is_kept(),
    "compare",
]
WRITE_PROTECTED = ("wp-sync", "wp-async", "soft-dirty")  # see a write that changes nothing
DATA_PAGES, ANON_PAGES = 6, 12

ADDRESSES = st.tuples(st.integers(0, 39), st.sampled_from([0, 1, 7, 2048, 4090, 4095]))
RANGES = st.tuples(st.integers(0, 39), st.integers(1, 5))
ACCESSES = [
    st.tuples(st.just("read"), ADDRESSES),
    st.tuples(st.just("write"), ADDRESSES, st.integers(0, 255)),
    st.tuples(st.just("write"), ADDRESSES, st.integers(0, 3)),
    st.tuples(st.just("kernel_write"), ADDRESSES),
]
LAYOUT = [
    st.tuples(st.just("map"), RANGES),
    st.tuples(st.just("unmap"), RANGES),
    st.tuples(st.just("drop"), RANGES),
    st.tuples(st.just("protect"), RANGES, st.booleans()),
    st.tuples(st.just("move"), RANGES, RANGES),
]
LISTS = st.lists(st.one_of(*ACCESSES, *ACCESSES, *LAYOUT), max_size=14)
POKES = st.lists(st.tuples(ADDRESSES, st.integers(0, 255)), max_size=2)


@dataclass(frozen=True)
class Turn:
    """One transaction: lists played in order, with the debugger's writes before each."""

    lists: List[Tuple[List[Tuple[object, ...]], List[Tuple[Tuple[int, int], int]]]]
    keep: bool


TURNS = st.builds(Turn, st.lists(st.tuples(LISTS, POKES), min_size=1, max_size=3), st.booleans())


class Player(Caller):
    """A core of steps.c under one engine."""

    def __init__(self, core, engine: str) -> None:
        super().__init__(core)
        self.engine = engine
        self.diversion.set_engine(engine)

    def play(self, steps: List[Step], then: World) -> int:
        """The list's sum; memory is `then` as soon as it has stopped."""
        self.diversion.write_memory(self.symbol("list"), encode(steps))
        stop = self.enter("play", self.symbol("list"))
        assert stop.breakpoint == "swbreak", (self.engine, stop)
        check_memory(self, then)
        self.diversion.call_end()
        return self.result


@pytest.fixture(scope="module")
def steps_core(built, tmp_path_factory):
    try:
        return kernel_core([str(built / "steps")], tmp_path_factory.mktemp("steps"))
    except NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


@pytest.fixture(scope="module")
def players(steps_core):
    made = [Player(steps_core, name) for name in OFFERED]
    yield made
    for player in made:
        player.close()


def areas(player: Player) -> List[int]:
    """The pages that lists name, by index."""
    starts = [player.symbol("data"), player.symbol("zeros")]
    anon = int.from_bytes(player.snapshot.read(player.symbol("anon"), 8), "little")
    pages = [s + i * PAGE for s in starts for i in range(DATA_PAGES)]
    pages += [anon + i * PAGE for i in range(ANON_PAGES)]
    return pages + [ARENA + i * PAGE for i in range(ARENA_PAGES)]


def recorded(player: Player) -> World:
    """The model of the core."""
    cells: Dict[int, Cell] = {}
    for page in areas(player)[:-ARENA_PAGES]:
        anonymous = page >= 0x150000000000 and page < ARENA
        content = player.snapshot.read(page, PAGE)
        cells[page] = Cell(content, 1, anonymous=anonymous, recorded=content)
    return World(cells, str(Path(player.snapshot.path).parent))


def resolve(world: World, pages: List[int], wish: Tuple[object, ...]) -> "Step | None":
    """A drawn operation on the model: the step to play, None where it makes no sense."""
    name, where, *rest = wish
    page, second = pages[where[0]], where[1]  # type: ignore[index]
    if name == "move":
        to, length = rest[0]  # type: ignore[misc]
        return world.move(page, second, pages[to], length)
    return getattr(world, str(name))(page, second, *rest)


def is_ours(page: int, pages: List[int]) -> bool:
    """Whether a list may touch it: the areas, and what lies behind the last two."""
    return page in pages or pages[2 * DATA_PAGES] <= page < pages[-1] + 8 * PAGE


def images(player: Player, report: CallReport, pages: List[int]):
    """page -> (before, after) of what the program changed, as the report has it."""
    found = {}
    for page in report.pages:
        if is_ours(page.start, pages) and "program" in page.writers and page.bytes_changed:
            found[page.start] = player.diversion.image(page.start, False)
    return found


def check_report(player: Player, pages: List[int], before: World, world: World, seen: Seen) -> None:
    """The report against the model."""
    report = player.diversion.last_report
    assert report is not None and report.engine == player.engine
    listed = [p for p in report.pages if is_ours(p.start, pages)]
    program = {p.start for p in listed if "program" in p.writers}
    debugger = {p.start for p in listed if "assignment" in p.writers}
    expected = seen.exact if player.engine in WRITE_PROTECTED else seen.visible
    assert program == {p for p in expected if p in world.cells}, player.engine
    assert debugger == {p for p in seen.debugger if p in world.cells}, player.engine
    for page, (was, now) in images(player, report, pages).items():
        assert now == world.cells[page].content, (player.engine, hex(page))
        old = before.cells.get(page) or before.cells.get(world.cells[page].root)
        assert was == (old.content if old else bytes(PAGE)), (player.engine, hex(page))
    for page in report.pages:
        attributed = player.engine in TELLING and "program" in page.writers
        assert (page.first_write is not None) == attributed, (player.engine, page)


def check_memory(player: Player, world: World) -> None:
    for page, cell in world.cells.items():
        assert player.diversion.read_memory(page, PAGE) == cell.content, (player.engine, hex(page))


def play_turn(players: List[Player], pages: List[int], world: World, turn: Turn) -> World:
    """Play it under every engine; the model after it."""
    before = world.copy()
    for cell in world.cells.values():
        cell.root = 0
    script = []
    for wishes, pokes in turn.lists:
        put = [(pages[i] + o, v) for (i, o), v in pokes if world.poke(pages[i], o, v)]
        world.look()
        world.sum = 1
        steps = [s for w in wishes if (s := resolve(world, pages, w)) is not None]
        world.look()
        script.append((put, steps, world.sum, world.copy()))
    note(f"keep {turn.keep}: {[part[:3] for part in script]}")
    for player in players:
        player.diversion.begin()
        for put, steps, total, then in script:
            for address, value in put:
                player.diversion.write_memory(address, bytes([value]))
            assert player.play(steps, then) == total, player.engine
        player.diversion.end(turn.keep)
        check_report(player, pages, before, world, world.seen)
        if turn.keep:
            check_memory(player, world)
        else:
            check_memory(player, before)
    after = world if turn.keep else before
    after.seen = Seen()
    return after


@pytest.mark.slow
@settings(
    max_examples=max(10, int(120 / EMULATED)),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(turns=st.lists(TURNS, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_all_engines_agree(players, turns, order):
    for player in players:
        player.diversion.reset()
    pages = areas(players[0])
    world = recorded(players[0])
    for turn in turns:
        # The same accesses in another order first, as a branch that is given up.
        lists = [
            (order.sample(wishes, len(wishes)) if wishes else [], pokes)
            for wishes, pokes in turn.lists
        ]
        world = play_turn(players, pages, world, Turn(lists, False))
        world = play_turn(players, pages, world, turn)


def test_what_the_kernel_offers_works():
    assert [name for name in ENGINES if not kernel().failure(name)] == OFFERED


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_does_not_work_is_refused_by_name(steps_core, name):
    if name in OFFERED:
        pytest.skip(f"{name} works here")
    player = Caller(steps_core)
    try:
        with pytest.raises(UffdError, match=name):
            player.diversion.set_engine(name)
    finally:
        player.close()


def test_the_time_that_faults_took_is_told(steps_core):
    """Of this call, in microseconds: some, and not more than it took."""
    player = Player(steps_core, OFFERED[0])
    try:
        for _ in range(2):
            began = time.monotonic()
            assert player.call("play", player.symbol("list")) == 1
            took_us = (time.monotonic() - began) * 1e6
            report = player.reports[-1]
            assert 0.1 < report.fault_us < took_us, report
    finally:
        player.close()
