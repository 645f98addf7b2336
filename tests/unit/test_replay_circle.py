"""When a call that runs for long is looked at: often for a while, then more and more seldom."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest

from gdb_uffd.replay import circle
from gdb_uffd.replay.interface import Stop

LOOK, FIRST = 3_000_000, 1_000_000_000


class Circle(circle.Circle):
    """Of a vessel that stands at each look as `stands` tells."""

    def __init__(self, stands: Callable[[int], Any], end: int = 0) -> None:
        self.deadlines: List[int] = []
        self.stands, self.looks = stands, 0
        super().__init__(SimpleNamespace(deadline_ns=end, set_deadline=self.deadlines.append))

    def state(self) -> Any:
        self.looks += 1
        return self.stands(self.looks)

    def pause(self) -> int:
        """From now to the deadline that was set last, of which there must be one for each look."""
        assert len(self.deadlines) == self.looks + 1
        return self.deadlines[-1] - time.monotonic_ns()


def no_step() -> Stop:
    raise AssertionError("it was stepped")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=5_000)
    monkeypatch.setattr(time, "monotonic_ns", lambda: made.now)
    return made


def test_looks_in_a_row_then_twice_the_pause(clock):
    watched = Circle(lambda look: look)
    watched.begin(True)
    assert watched.pause() == FIRST
    for pause in (FIRST * 2, FIRST * 4):
        for _ in range(63):
            assert watched.look(no_step) is None and watched.pause() == LOOK
        assert watched.look(no_step) is None and watched.pause() == pause


def test_where_it_cannot_be_told_how_it_stands(clock):
    watched = Circle(lambda look: None)
    watched.begin(True)
    for doubled in range(1, 5):
        assert watched.look(no_step) is None and watched.pause() == FIRST << doubled


def test_what_stood_so_before_the_pause_is_forgotten(clock):
    """Between two rows of looks it may have been anywhere."""
    watched = Circle(lambda look: (look - 1) % 64)
    watched.begin(True)
    for _ in range(3 * 64):
        assert watched.look(no_step) is None


def test_the_real_deadline_comes_first(clock):
    watched = Circle(lambda look: look, end=clock.now + FIRST + LOOK // 2)
    watched.begin(True)
    assert watched.pause() == FIRST and not watched.is_over()
    clock.now += FIRST
    assert watched.look(no_step) is None and watched.pause() == LOOK // 2
    assert not watched.is_over()
    clock.now += LOOK // 2
    assert watched.is_over()


def test_what_is_not_looked_at_has_its_own_deadline_alone(clock):
    watched = Circle(lambda look: look)
    watched.begin(False)
    assert not watched.deadlines and watched.is_over()
