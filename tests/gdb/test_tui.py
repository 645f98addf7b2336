"""`layout uffd`: the window with the last call's pages, as a terminal shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest

pytest.importorskip("pyte", reason="pyte is not installed: `make dev`")

from harness.screen import Screen

pytestmark = pytest.mark.every_gdb

DOWN, UP = "\x1b[B", "\x1b[A"


@pytest.fixture
def screen(gdb_path: str, tmp_path: Path, all_cores: Any) -> Iterator[Screen]:
    started = Screen(gdb_path, tmp_path / "home")
    if "Undefined" in started.text() or not has_tui(started):
        started.close()
        pytest.skip("this gdb has no text user interface")
    started.type(f"uffd spawn {all_cores.writes()}\n")
    started.shows("core: 1 thread")
    started.type("layout uffd\n")
    yield started
    started.close()


def has_tui(screen: Screen) -> bool:
    screen.type("python print('tui', hasattr(gdb, 'register_window_type'))\n")
    lines = screen.until(lambda lines: any(line.startswith("tui ") for line in lines))
    return "tui True" in lines


def window(screen: Screen) -> "list[str]":
    """The lines inside of our window."""
    lines = screen.lines()
    top = next((i for i, line in enumerate(lines) if "uffd: the last call" in line), None)
    if top is None:
        return [""]
    bottom = next((i for i in range(top + 1, len(lines)) if lines[i].startswith(("+--", "+-/"))), 0)
    return [line[1:-1].rstrip() for line in lines[top + 1 : bottom]] or [""]


def test_before_anything_ran(screen):
    screen.shows("uffd: the last call", "nothing has run yet")


def test_it_is_redrawn_after_each_call(screen):
    screen.shows("nothing has run yet")
    screen.type("uffd call count(3)\n")
    screen.until(lambda _: any("counter 41 → 47" in line for line in window(screen)))
    assert window(screen)[0] == "count(3)"
    assert screen.colour("41 → 47") == "red"
    screen.type("uffd call members()\n")
    screen.until(lambda _: window(screen)[0] == "members()")
    screen.until(lambda _: "members () at writes.c" in "\n".join(window(screen)))
    screen.until(lambda _: "count" not in "\n".join(window(screen)))
    screen.type("print count(1)\n")
    screen.until(lambda _: any("counter 41 → 42" in line for line in window(screen)))
    screen.until(lambda _: "· kept" in "\n".join(window(screen)))
    screen.type("uffd reset\n")
    screen.until(lambda _: "nothing has run yet" in "\n".join(window(screen)))


def test_scrolling(screen):
    screen.type("uffd call spread(100)\n")
    screen.until(lambda _: window(screen)[0] == "spread(100)")
    screen.type("winheight uffd 8\n")
    screen.until(lambda _: len(window(screen)) == 6)
    before = window(screen)
    screen.type("focus uffd\n")
    screen.shows("Focus set to uffd window")
    # What is typed before the prompt is there is no key of the window's.
    screen.until(lambda lines: [line for line in lines if line][-1] == "(gdb)")
    screen.type(DOWN * 3)
    screen.until(lambda _: window(screen)[0] == before[3])
    screen.type(UP * 2)
    screen.until(lambda _: window(screen)[0] == before[1])
    screen.type(DOWN * 300)  # the last line stays in sight
    screen.until(lambda _: "only gdb wrote" in window(screen)[-1])
    screen.type(UP * 300)
    screen.until(lambda _: window(screen) == before[:6])
    screen.type("uffd call count(1)\n")  # another call: from its beginning
    screen.until(lambda _: window(screen)[0] == "count(1)")


def test_the_window_follows_the_terminal(screen):
    screen.type("uffd call count(3)\n")
    screen.until(lambda _: window(screen)[0] == "count(3)")
    height = len(window(screen))
    screen.type("winheight uffd - 3\n")
    screen.until(lambda _: len(window(screen)) == height - 3)
    assert window(screen)[0] == "count(3)"


def test_the_terminal_gets_another_size(screen):
    screen.type("uffd call members()\n")
    screen.until(lambda _: window(screen)[0] == "members()")
    screen.until(lambda _: "members () at writes.c" in "\n".join(window(screen)))
    wide = max(map(len, window(screen)))
    for rows, columns in ((24, 60), (10, 30), (40, 140)):
        screen.resize(rows, columns)
        screen.type("\x0c")  # Ctrl-L: redraw, when gdb has seen the new size
        screen.until(
            lambda lines, columns=columns: any(
                "uffd: the" in line and len(line) == columns for line in lines
            )
        )
        screen.until(lambda _: window(screen)[0] == "members()")
    screen.until(lambda _: max(map(len, window(screen))) >= wide)  # the lines are made anew
    screen.type("uffd call count(1)\n")
    screen.until(lambda _: window(screen)[0] == "count(1)")


def test_without_a_core(screen):
    screen.type("uffd kill\n")
    screen.until(lambda _: "no core is spawned" in "\n".join(window(screen)))


def test_leaving_and_coming_back(screen):
    screen.type("uffd call count(3)\n")
    screen.until(lambda _: window(screen)[0] == "count(3)")
    screen.type("tui disable\n")
    screen.until(lambda lines: lines[-1].endswith("(gdb)") or "(gdb)" in lines[0])
    screen.type("uffd call count(2)\n")
    screen.shows("counter 41 → 44")
    screen.type("layout uffd\n")
    screen.until(lambda _: window(screen)[0] == "count(2)")
