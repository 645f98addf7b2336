"""What the TUI window and the machine interface are made of, without gdb."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.client.frontends import mi_values
from gdb_uffd.client.show.scroll import Scroller
from gdb_uffd.client.show.text import Look
from gdb_uffd.protocol.model import UffdError


def test_scrolling():
    scroller = Scroller()
    assert scroller.visible(10, 3) == []
    scroller.set([f"line {i} of some" for i in range(5)])
    assert scroller.visible(6, 3) == ["line 0", "line 1", "line 2"]
    scroller.down(1, 3)
    scroller.right(3, 6)
    assert scroller.visible(6, 3) == ["e 1 of", "e 2 of", "e 3 of"]
    scroller.down(100, 3)
    scroller.right(100, 6)
    assert scroller.visible(6, 3) == ["f some"] * 3 and scroller.top == 2
    scroller.down(-100, 3)
    scroller.right(-100, 6)
    assert scroller.visible(6, 9) == [f"line {i}" for i in range(5)]
    scroller.down(4, 3)
    assert len(scroller.visible(6, 5)) == 5  # the window has grown
    scroller.set(["other"])
    assert (scroller.top, scroller.left) == (0, 0)


@given(
    st.lists(st.text(alphabet="ab ", max_size=30), max_size=30),
    st.lists(st.tuples(st.booleans(), st.integers(-50, 50)), max_size=10),
    st.integers(-2, 20),
    st.integers(-2, 20),
)
def test_a_window_is_never_left(lines, moves, width, height):
    scroller = Scroller()
    scroller.set(lines)
    for vertical, count in moves:
        scroller.down(count, height) if vertical else scroller.right(count, width)
        shown = scroller.visible(width, height)
        assert len(shown) <= max(0, height) and all(len(s) <= max(0, width) for s in shown)
        if lines and height > 0:
            assert shown
            assert len(shown) == min(height, len(lines))


def test_values_for_the_machine_interface():
    data = {"a": 1, "b": None, "c": True, "d": [1.5, None, {"e": False}], "f": "x", "g": []}
    assert mi_values.value(data) == {
        "a": "1",
        "c": "true",
        "d": ["1.5", {"e": "false"}],
        "f": "x",
        "g": [],
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=20,
    )
)
def test_only_texts_tuples_and_lists(data):
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert isinstance(key, str)
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert isinstance(value, str)

    check(mi_values.value(data))
    json.dumps(mi_values.value(data))


def test_options_of_the_machine_interface():
    assert mi_values.options(["-keep", "f(1)"], ["keep"], "u") == (["keep"], ["f(1)"])
    assert mi_values.options(["f(1)", "-keep"], ["keep"], "u") == ([], ["f(1)", "-keep"])
    assert mi_values.options(["--", "-x"], ["keep"], "u") == ([], ["-x"])
    assert mi_values.options([], ["keep"], "u") == ([], [])
    with pytest.raises(UffdError, match="-all is no option; usage: u"):
        mi_values.options(["-all"], ["keep"], "u")


def test_scrolling_to_the_right_keeps_the_colours():
    look = Look(colour=True)
    scroller = Scroller()
    scroller.set([f"ab{look.paint('added', 'cdef')}gh", "名前 x"])
    assert [look.tidy(line) for line in scroller.visible(4, 2)] == [
        "ab\x1b[32mcd\x1b[m",
        "名前",
    ]
    scroller.right(3, 4)
    assert scroller.visible(4, 1) == ["\x1b[32mdef\x1b[mg"]
    scroller.right(99, 4)
    assert scroller.left == 4
