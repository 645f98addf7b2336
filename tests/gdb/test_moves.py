"""What was there before, of memory that a call moved, unmapped or mapped anew; and reports of more
pages than can be listed."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.shared_gdb


@pytest.fixture
def moves(opened, all_cores):
    gdb = opened(all_cores.moves())
    gdb.run("frame function main")
    return gdb


def changed(data):
    return {c["name"]: (c["before"], c["after"]) for d in data["dirty"] for c in d["changes"]}


@pytest.mark.parametrize("keep", ["-keep", ""])
def test_before_is_what_was_there(moves, keep):
    names = ("block", "second", *(f"block[{4096 * i + k}]" for i in range(3) for k in (0, 6)))
    for call in ("move()", "move_twice()", "drop()", "renew()"):
        before = {name: moves.value(name) for name in names}
        data = moves.call(call, *([keep] if keep else []))
        told = changed(data)
        if not keep:
            moves.run(f"print {call}")  # to look at what it leaves
        after = {name: moves.value(name) for name in names}
        for name in names:
            if name in told:
                assert told[name] == (before[name], after[name]), (call, name)
        pointer = "second" if call == "drop()" else "block"
        if call != "renew()":
            assert told[pointer] == (before[pointer], after[pointer]), call
        if call.startswith("move"):
            (name,) = [n for n in told if n.startswith("block[4096]")]
            assert "X" in told[name][1] and "X" not in told[name][0], told
            assert "block[4102]" not in told and "block[8198]" not in told, told
        if call == "renew()":
            assert any(pair[1] == "97 'a'" or "anew" in (pair[1] or "") for pair in told.values())
        moves.run("uffd reset")
        moves.run("frame function main")


def test_a_string_argument_is_not_the_programs(moves):
    data = moves.call('note("0123456789abcdef")')
    assert changed(data)["label"][1].endswith('"0123456789abcdef"'), data
    assert any("own call of malloc" in note for note in data["notes"]), data["notes"]
    assert not moves.call("drop()")["notes"]


@pytest.mark.own_gdb
def test_more_pages_than_are_listed(moves):
    text = moves.run("uffd call dirty(18000)")
    lines = text.strip().splitlines()
    assert lines[0] == "$1 = 18000"
    unknown = "read 18,000 pages that this core does not hold, taken as zeros"
    assert lines[1] == f"wrote globals of moves, anonymous memory · {unknown}", text
    assert lines[2].startswith("18,002 pages dirtied"), text
    assert "last 7 → 8" in text, text
    # The stack's page is one of them, too, where the stack pointer lies low on the page above it.
    more = re.search(r"… ([\d,]+) more pages, not told apart \(([\d,]+) B changed\):", text)
    assert more and re.search(r"anon +([\d,]+) B in \1 pages", text), text
    rows = re.findall(r"([\d,]+) B in ([\d,]+) pages?", text[more.end() :])
    pages, changed = (int(number.replace(",", "")) for number in more.groups())
    sums = [sum(int(row[i].replace(",", "")) for row in rows) for i in (1, 0)]
    assert sums == [pages, changed] and len(rows) <= 2, text
    moves.run("python import json; d = gdb.execute('uffd dirty -json', to_string=True)")
    moves.run("python d = json.loads(d[d.index('{'):]); more = d['more']")
    moves.run("python spans = sum(int(r['end'], 16) - int(r['start'], 16) for r in more['ranges'])")
    counts = moves.run("python print(len(d['dirty']), more['pages'], spans // 4096)").split()
    assert counts[1] == counts[2] == more[1].replace(",", "")
    assert int(counts[0]) + int(counts[1]) == 18_002
    before, after = moves.run("uffd diff last").splitlines()
    assert "  07 00 00 00 " in before and "  08 00 00 00 " in after
