"""Who wrote first: the program's own line, whatever library or header did it for it."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import pytest

pytestmark = pytest.mark.shared_gdb

CALLS = {
    "locked()": "lock", "copy(\"after\")": "copied", "sort()": "count", "push(4)": "numbers",
    "assign(\"after, and longer than it was before\")": "text", "swap()": "count",
    "own()": "behind", "reset()": "owned", "chain(4)": "numbers",
}  # fmt: skip
"""A call, and what it writes first on a page of its own."""


@pytest.fixture(params=["through", "through-o2"])
def through(opened, all_cores, request):
    return opened(all_cores.through(request.param))


def first_write(gdb: Any, call: str, name: str) -> Dict[str, Any]:
    data = gdb.call(call)
    start = int(gdb.value(f"(long) &{name}"), 0)
    (page,) = [p for p in data["dirty"] if int(p["start"], 16) == start]
    return dict(page["first_write"])


def own(first: Dict[str, Any]) -> Tuple[str, str, int]:
    place = first.get("caller") or first
    return place["function"], place["file"].rpartition("/")[2], place["line"]


@pytest.mark.parametrize("call", CALLS)
def test_it_is_the_line_that_the_frames_have(through, call):
    """gdb's unwinder at the write itself is the oracle: the innermost frame of this file."""
    name = CALLS[call]
    found = own(first_write(through, call, name))
    through.run(f"uffd call {call}")
    write = through.json(f"uffd why -json -first {name}")["writes"][0]
    frames = [f for f in write["backtrace"] if (f["file"] or "").endswith("through.cpp")]
    assert found == (frames[0]["function"], "through.cpp", frames[0]["line"]), write["backtrace"]
    start = hex(int(through.value(f"(long) &{name}"), 0))
    row = next(line for line in through.run("uffd dirty -full").splitlines() if f"{start}" in line)
    assert row.rstrip().endswith(f"{found[0]} () at through.cpp:{found[2]}"), row


def test_what_is_skipped_is_passed_over(through):
    line = own(first_write(through, "chain(4)", "numbers"))
    assert line[0] == "push"
    for words in ("function push", "-function push", "-rfunction ^pu.h"):
        through.run(f"skip {words}")
        assert own(first_write(through, "chain(4)", "numbers"))[0] == "chain", words
        through.run("skip disable")
        assert own(first_write(through, "chain(4)", "numbers")) == line
        through.run("skip delete")
    through.run("skip -gfile */through.c*")
    first = first_write(through, "chain(4)", "numbers")
    assert "caller" not in first or first["caller"]["function"] != "push"
    through.run("skip delete")
    through.run("skip file no-such.cpp")
    assert own(first_write(through, "chain(4)", "numbers")) == line


UNWOUND = {
    "outer(3)": "target", "changing(3)": "target", "after_deep(3)": "target", "insert(3)": "sizes",
    "print(3)": "stream", "sort_numbers(3)": "compared", "indirect(3)": "target",
}  # fmt: skip
"""The same, of frames that are far from the program's own line."""


@pytest.mark.parametrize("program", ["unwinds", "unwinds-o2", "unwinds-untold", "unwinds-static"])
def test_it_is_found_through_frames_of_all_kinds(opened, all_cores, program):
    gdb = opened(all_cores.unwinds(program))
    for call, name in UNWOUND.items():
        found = own(first_write(gdb, call, name))
        write = gdb.json(f"uffd why -json -first {name}")["writes"][0]
        frames = [f for f in write["backtrace"] if (f["file"] or "").endswith("unwinds.cpp")]
        if frames:
            assert found == (frames[0]["function"], "unwinds.cpp", frames[0]["line"]), call
        assert found[0] in (call.partition("(")[0], "leaf", "roomy", "by_number"), call


def test_what_the_linker_writes_is_told_by_the_line_that_calls(opened, all_cores):
    gdb = opened(all_cores.unwinds("unwinds"))
    data = gdb.call("through_plt(3)")
    (page,) = [p for p in data["dirty"] if p["mapping"].endswith("unwinds")]
    assert own(page["first_write"])[:2] == ("through_plt", "unwinds.cpp")


def test_no_frame_of_an_earlier_call_is_told(opened, all_cores):
    gdb = opened(all_cores.unwinds("unwinds"))
    gdb.run("uffd call deep(50)")
    data = gdb.call('(int)puts("x")')
    places = [own(p["first_write"])[1] for p in data["dirty"] if p["first_write"]]
    assert places and "unwinds.cpp" not in places
    assert "deep ()" not in gdb.run('uffd call (int)puts("x")')
