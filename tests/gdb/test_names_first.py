"""Names of what is there for the first time, lies in no block, or is too much to be told."""

from __future__ import annotations

import re

import pytest
from harness.noted import changes

pytestmark = pytest.mark.shared_gdb


@pytest.fixture
def firsts(opened, all_cores):
    return opened(all_cores.names("firsts"))


def test_thread_locals_that_a_call_makes_are_new_and_go_with_it(firsts):
    data = firsts.call("first_use(7)")
    found = {c["name"]: (c["after"], c["note"], c["kind"]) for c in changes(data)}
    assert found["plugin_tls"] == ("7", "new", "tls")
    assert found["plugin_pair.second"] == ("8", "new", "tls")
    assert "anonymous" not in {w["what"] for w in data["verdict"]["wrote"]}
    # The block where they were is another's in the next call.
    data = firsts.call("spell(1)")
    assert "tls" not in {w["what"] for w in data["verdict"]["wrote"]}
    assert "plugin" not in str(data["dirty"])
    firsts.call("first_use(7)", "-keep")
    data = firsts.call("first_use(9)")
    assert ("plugin_tls", "7", "9") in [(c["name"], c["before"], c["after"]) for c in changes(data)]


def test_a_mapping_by_the_pointer_to_it(firsts):
    data = firsts.call("put(5)")
    found = {c["name"]: (c["before"], c["after"], c["type"]) for c in changes(data)}
    assert found == {
        "mapped[2000]": ("0", "5", "int"),
        "pairs[3].right": (str(0x01010101), "5", "int"),
    }
    for name, (before, _, _) in found.items():
        assert firsts.value(name) == before


def test_what_is_too_much_is_told_as_bytes(firsts):
    data = firsts.call("fill(1)")
    start = int(firsts.value("(long) &row"))
    told = set()
    for change in changes(data):
        at = int(change["address"], 16)
        told |= set(range(at, at + change["size"]))
    written = {
        start + 4 * i + byte for i in range(600) for byte in range(4) if (1 + i) >> 8 * byte & 255
    }
    assert written <= told
    rest = [c for c in changes(data) if c["note"] == "the rest"]
    assert rest and all(c["raw"] and c["name"].startswith("row+0x") for c in rest)


def test_a_new_text_ends_where_it_ends(firsts):
    (text,) = [c for c in changes(firsts.call("spell(1)")) if c["name"] != "word"]
    assert (text["name"], text["after"], text["note"]) == ("*word@6", '"seven"', "new")


def test_the_section_is_that_of_the_programs_own_change(firsts):
    shown = firsts.run("uffd call spell(1)"), firsts.run("uffd dirty -full")
    for text in shown:
        (line,) = [line for line in text.splitlines() if re.search(r" word 0x\w+ .*→ 0x", line)]
        assert " .bss " in line, text
    assert "strdup@got" not in shown[0] and "strdup@got" in shown[1]


def test_no_page_of_a_large_object_is_left_out(firsts):
    data = firsts.call("overwrite(9)")
    for page in data["dirty"]:
        if page["kind"] == "data" and page["mapping"].endswith("firsts"):
            spans = [(int(c["address"], 16), c["size"]) for c in page["changes"]]
            told = {b for at, size in spans for b in range(at, at + size)}
            assert len(told) >= page["bytes_changed"], page["start"]
    shown = firsts.run("uffd call overwrite(9)")
    assert re.search(r"text\[0\] .*… [\d,]+ more B", shown), shown
    firsts.run("print overwrite(9)")
    full = firsts.run("uffd dirty -full")
    assert "(the rest)" in full and "more B" not in full


def test_names_that_look_like_those_of_ada(firsts):
    found = {c["name"]: c["after"] for c in changes(firsts.call("overwrite(9)"))}
    assert found["under__scored"] == "9"
    assert "crash__here () did not return" in firsts.run("uffd call crash__here(8)")


def test_what_did_not_return_is_not_pure(firsts):
    data = firsts.call("crash__here(8)")
    assert not data["verdict"]["pure"] and "did not return" in data["verdict"]["text"]
    data = firsts.call("no_such_function(8)")
    assert not data["verdict"]["pure"]


def test_the_users_trace_of_commands_is_not_read(firsts):
    before = [c["name"] for c in changes(firsts.call("overwrite(9)"))]
    firsts.run("set trace-commands on")
    text = firsts.run("uffd call settle(3)")
    assert "both.left 0 → 3" in text and "+output" not in text and "+info symbol" not in text
    firsts.run("set trace-commands off")
    assert [c["name"] for c in changes(firsts.call("overwrite(9)"))] == before


def test_much_memory_of_no_block_is_counted(firsts):
    text = firsts.run("uffd call scatter(20)", timeout=60)
    assert "mapped 20.0 MiB" in text and re.search(r"5,1\d\d pages dirtied", text), text
    assert re.search(r"[\d,]+ B in \[anon\]", text), text


def test_the_first_block_of_all(gdb, all_cores):
    gdb.run(f"uffd spawn {all_cores.names('firsts', 'early')}")
    for _ in range(2):
        data = gdb.call("make(5)")
        assert data["verdict"]["allocated"]["blocks"] >= 1
        assert "cannot be read" not in data["verdict"]["text"]
        found = {c["name"]: (c["after"], c["note"]) for c in changes(data)}
        assert found["*made"] == ("5", "new")


def test_a_pointer_into_a_mapping_tells_of_one_object_there(firsts):
    """What goes beyond it is no part of an array: the mapping does not begin with it."""
    firsts.run("print mapped = mapped + 100")
    (change,) = changes(firsts.call("settle(0) + (*mapped = 5)"))
    assert (change["name"], change["raw"], change["size"]) == ("*mapped", False, 4)
    (change,) = changes(firsts.call("settle(0) + (*(long *) mapped = -1)"))
    assert change["raw"] and change["size"] == 8 and "mapped" not in change["name"], change
