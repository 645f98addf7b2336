"""`uffd trace`: the first touch of each page, in order."""

from __future__ import annotations

import re

import pytest
from harness import survivors

pytestmark = pytest.mark.shared_gdb


def trace(gdb, expression, *options):
    return gdb.json(" ".join(["uffd trace -json", *options, expression]))


def place(touch):
    return touch["kind"], touch["mapping"].rpartition("/")[2], touch["access"]


@pytest.mark.own_gdb
def test_text(writes):
    text = writes.run("uffd trace push(5)")
    lines = text.strip().split("\n")
    assert re.match(r"\$1 = \(struct item \*\) 0x", lines[0])
    assert re.search(r"^\d+ pages touched, first \d+ read, \d+ written, \d+ run · ", lines[1])
    assert " fed of " in lines[1] and lines[1].endswith("discarded")
    assert re.match(r" +1 run +0x\w+000 \.text +writes +push \(\) at writes\.c:\d+", lines[2])
    assert re.search(r"read\+w .*\.bss +writes .*push \(\) at writes\.c", text), text
    assert "heap" in text and re.search(r"TLS +thread 1", text), text
    assert re.search(r"stack +thread 1", text), text
    whose = (" writes ", " libc.so.6 ", " thread 1 ")
    columns = {line.index(word) for line in lines[2:] for word in whose if word in line}
    assert len(columns) == 1, text


def test_reads_are_seen(writes):
    data = trace(writes, "table[0].id + large[0]")
    assert data["touched"] == []  # gdb itself reads without a process
    data = trace(writes, "same()")
    places = [place(t) for t in data["touched"]]
    assert ("data", "writes", "run") in places
    assert [t["order"] for t in data["touched"]] == list(range(1, len(places) + 1))
    assert len({t["start"] for t in data["touched"]}) == len(places)


def test_pages_that_were_there_already_are_seen_again(writes):
    first = trace(writes, "push(5)")
    writes.run("uffd call push(5)")
    writes.run("print count(1)")
    again = trace(writes, "push(5)")
    assert {t["start"] for t in again["touched"]} == {t["start"] for t in first["touched"]}
    assert sorted(map(place, again["touched"])) == sorted(map(place, first["touched"]))


def test_every_page_that_a_call_writes_was_touched(writes):
    for call in ("push(5)", "spread(500)", "members()", "maps()"):
        touched = {t["start"]: t for t in trace(writes, call)["touched"]}
        dirty = writes.call(call)["dirty"]
        assert {p["start"] for p in dirty} <= set(touched)
        for page in dirty:
            assert touched[page["start"]]["written"], (call, page)
        written = {start for start, t in touched.items() if t["written"]}
        assert written == {p["start"] for p in dirty}, call


def test_the_first_touch(writes):
    data = trace(writes, "spread(5000)")
    start = int(writes.value("(long)&large"))
    mine = [t for t in data["touched"] if start <= int(t["start"], 16) < start + 160000]
    assert [t["access"] for t in mine] == ["write"] * len(mine) and len(mine) >= 3
    for touch in mine:
        first = touch["first_touch"]
        assert first["function"] == "spread" and first["file"].endswith("writes.c")
        assert int(touch["start"], 16) <= int(first["address"], 16) < int(touch["end"], 16)
    assert [int(t["start"], 16) for t in mine] == sorted(int(t["start"], 16) for t in mine)


def test_new_memory_is_not_fed(writes):
    data = trace(writes, "maps()")
    new = [t for t in data["touched"] if not t["fed"]]
    assert len(new) == 4 and {t["kind"] for t in new} == {"anonymous"}
    assert "(new memory)" in writes.run("uffd trace maps()")


def test_a_system_call_touches(writes):
    data = trace(writes, "by_kernel_into_large()")
    calls = [t for t in data["touched"] if t["system_call"]]
    assert calls and calls[0]["access"] in ("read", "write"), data


def test_effects_are_discarded(writes):
    writes.run("print count(1)")
    writes.run("uffd trace count(5)")
    assert writes.value("counter") == "42"
    assert "beside" in writes.run("uffd dirty -all")
    data = writes.json("uffd why -json counter")  # the last call is the one before the trace
    assert [w["changes"][0]["after"] for w in data["writes"]] == ["42"]


def test_the_value_and_what_was_printed(writes):
    text = writes.run('uffd trace say("a text")')
    assert text.index("a text") < text.index("= 42") < text.index("pages touched")
    data = trace(writes, 'say("a text")')
    assert data["output"] == "a text\n" and data["value"] == "42" and data["type"] == "int"


def test_a_crash(writes):
    text = writes.run("uffd trace faults()")
    assert "pages touched" in text and "did not return: SIGSEGV" in text
    data = trace(writes, "faults()")
    assert "SIGSEGV" in data["error"] and data["value"] is None and data["touched"]
    assert writes.value("counter") == "41"


@pytest.mark.own_gdb
def test_a_breakpoint_ends_it(writes):
    before = writes.run("bt")
    writes.run("break bump")
    text = writes.run("uffd trace count(3)")
    assert "pages touched" in text and "breakpoint 1" in text, text
    assert writes.run("bt") == before
    writes.run("delete")
    assert writes.call("count(3)")["value"] == "47"


def test_ctrl_c(writes):
    writes.send("uffd trace idle()")
    survivors.wait_computing()
    text = writes.interrupt()
    assert "pages touched" in text and "interrupted" in text
    survivors.until(lambda: len(survivors.vessels()) == 0)
    assert writes.value("count(1)") == "42"


def test_arguments(writes):
    assert "usage: uffd trace" in writes.run("uffd trace")
    assert "No symbol" in writes.run("uffd trace nosuch(1)")
    assert "-json" in writes.run("complete uffd trace -j")
    assert "uffd trace count" in writes.run("complete uffd trace coun")
    assert writes.value("count(1)") == "42"


def test_gdb_text_argument_goes_through_malloc(zoo):
    data = trace(zoo, 'mix(1, 2.5, "text")')
    assert data["output"] == "mix 1 2.50 text\n" and data["value"] == "5"
    heap = [t for t in data["touched"] if t["kind"] == "heap"]
    assert heap


def test_what_an_answered_system_call_reads(zoo):
    data = trace(zoo, "(long)write(1, greeting, 5)")
    text = int(zoo.value("(long)greeting")) & -4096
    (touch,) = [t for t in data["touched"] if int(t["start"], 16) == text]
    assert touch["access"] == "read" and data["output"] == "hello"
    assert touch["system_call"] == "write" and data["value"] == "5"
