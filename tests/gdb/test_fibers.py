"""Stacks of the program's own, and functions that leave by them."""

from __future__ import annotations

import re


def test_the_outermost_pc_is_0(gdb, all_cores):
    gdb.run(f"uffd spawn {all_cores.heaps('fibers', 'fiber')}")
    text = gdb.run("uffd call push(7)")
    assert "= 7" in text and "hidden" in text and "error" not in text, text
    assert "= 7" in gdb.run("uffd trace push(7)")
    assert re.search(r"^1 +hidden \d+ → \d+$", gdb.run("uffd why hidden"), re.M)


def test_a_function_that_leaves_by_setcontext(gdb, all_cores):
    """gdb before 16 stops at an assertion of its own where a frame that it has selected is gone;
    the server knows why the call ended."""
    gdb.run(f"uffd spawn {all_cores.heaps('fibers')}")
    for frame in ("0", "2"):
        gdb.run(f"frame {frame}")
        text = gdb.run("uffd call leave(1)")
        assert "leave () did not return: the program would exit with code 3" in text, text
        assert "left before" in text and text.rstrip().endswith("discarded"), text
        assert gdb.run("frame").startswith(f"#{frame} "), text
    assert "exit with code 3" in gdb.call("leave(1)")["error"]
    assert "exit with code 3" in gdb.run("uffd call -keep leave(1)")
    gdb.run("uffd reset")
    assert "exit with code 3" in gdb.run("print leave(1)")
    gdb.run("uffd reset")
    assert gdb.call("push(7)")["value"] == "7"
