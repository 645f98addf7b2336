"""Names of what a call changed, against what the program itself notes and what gdb prints."""

from __future__ import annotations

import re

import pytest
from harness.noted import changes, notes, told

pytestmark = pytest.mark.shared_gdb


def plain(text):
    """A value as it stands in a structure: `print` puts the type before a pointer."""
    return re.sub(r"^\((?:[^()]|\([^()]*\))*\) (?=0x)", "", text)


def check_values(gdb, expression, data):
    """Each change's texts are what gdb prints before and, the effects kept, after."""
    # gdb has no expression for a static variable of an inner block.
    named = [c for c in changes(data) if not c["raw"] and "::inner" not in c["name"]]
    before = [plain(gdb.value(c["name"])) if c["note"] != "new" else None for c in named]
    gdb.call(expression, "-keep")
    after = [plain(gdb.value(c["name"])) for c in named]
    gdb.run("uffd reset")
    for change, old, new in zip(named, before, after):
        assert change["after"] == new, change
        assert old is None or change["before"] == old, change
    return named


@pytest.mark.parametrize(
    "expression",
    [
        "set_globals(9)",
        "set_strings(3)",
        "set_hidden(3)",
        "count_calls(2)",
        "set_tls(8)",
        "set_list(99)",
        "set_union(3)",
    ],
)
def test_names_are_what_the_program_noted(names, expression):
    data = names.call(expression)
    assert notes(data) and told(data) == notes(data)
    checked = check_values(names, expression, data)
    assert len(checked) == len(notes(data)) - (expression == "count_calls(2)")


def test_a_bit_field_is_told_alone(names):
    data = names.call("set_bits(5)")
    assert notes(data) == []
    found = {c["name"]: (c["before"], c["after"]) for c in changes(data)}
    assert found == {
        "mixed.low": ("0", "5"),
        "mixed.sign": ("0", "-3"),
        "hidden.high": ("0", "21"),
    }
    check_values(names, "set_bits(5)", data)


def test_members_of_a_union(names):
    data = names.call("set_union(3)")
    every = [c for page in data["dirty"] for c in page["changes"] if not c["role"]]
    assert {c["name"]: c["union"] for c in every} == {"mixed.real": False, "mixed.bits": True}
    (bits,) = [c for c in every if c["union"]]
    assert (bits["before"], bits["after"]) == ("0", str(0x40600000))


def test_blocks_by_the_path_that_leads_there(names):
    data = names.call("set_blocks(8)")
    found = {c["name"]: c for c in changes(data)}
    expected = {n: (a, s) for n, a, s in notes(data)}
    for name in ("buckets[2]->next->weight", "grown[1]->weight", "numbers[70]"):
        assert (int(found[name]["address"], 16), found[name]["size"]) == expected[name]
    assert found["flexible->bytes"]["address"] == hex(expected["flexible->bytes"][0])
    assert found["flexible->bytes"]["after"].startswith('"flexed')
    (words,) = [c for n, c in found.items() if n.startswith("*words@")]
    assert int(words["address"], 16) == expected["words"][0]
    assert "words of it" in words["before"] and "WORDS of it" in words["after"]
    (untyped,) = [c for n, c in found.items() if n.startswith("untyped")]
    assert (untyped["before"], untyped["after"], untyped["raw"]) == ("00", "08", True)
    assert untyped["name"] == "untyped+0x8"
    assert len(found) == 6
    names.run("uffd call -keep set_blocks(8)")
    assert names.value("buckets[2]->next->weight") == found["buckets[2]->next->weight"]["after"]
    assert names.value("numbers[70]") == "8"


def test_a_new_block(names):
    data = names.call("push(7)")
    alias = {"fresh->value": "head->value", "fresh->next": "head->next"}
    expected = sorted((alias.get(n, n), a, s) for n, a, s in notes(data))
    assert told(data) == expected
    notes_of = {c["name"]: c["note"] for c in changes(data)}
    assert notes_of == {"head": None, "head->value": "new", "head->next": "new"}
    (block,) = data["blocks"]
    assert block == {"start": hex(expected[2][1]), "size": 24, "state": "allocated"}
    check_values(names, "push(7)", data)


def test_a_block_that_only_the_value_or_an_argument_leads_to(names):
    data = names.call("make_node(4)")
    (change,) = changes(data)
    assert re.fullmatch(r"\$\d+->value", change["name"]) and change["after"] == "4"
    assert int(change["address"], 16) == notes(data)[0][1]
    data = names.call("give_back(table[3].next ? table[3].next : grown[2], 4)")
    assert any(int(c["address"], 16) == notes(data)[0][1] for c in changes(data))
    data = names.call("give_back(head->next, 4)")
    assert told(data) == [("head->next->value", notes(data)[0][1], 4)]


def test_a_path_too_long_to_read_gives_way_to_the_type(names):
    data = names.call("set_far(9)")
    (change,) = changes(data)
    ((_, address, _),) = notes(data)
    assert change["name"] == f"((struct node *) {address:#x})->value"
    assert names.value(change["name"]) == change["before"] == "2"


def test_thread_locals_of_each_thread(names):
    for thread, before in ((1, "3"), (2, "33")):
        names.run(f"thread {thread}")
        data = names.call("set_tls(8)")
        assert told(data) == notes(data)
        tid = int(re.search(r"Thread \d+\.(\d+)", names.run("thread"))[1])
        for change in changes(data):
            assert change["kind"] == "tls" and change["thread"] == tid
        assert [c["before"] for c in changes(data) if c["name"] == "tls_int"] == [before]
        assert data["verdict"]["wrote"][0]["what"] == "tls"


def test_thread_locals_of_a_library_that_was_opened(names):
    for thread, before in ((1, ("2", "1")), (2, ("45", "44"))):
        names.run(f"thread {thread}")
        data = names.call("set_plugin(8)")
        found = {c["name"]: (c["before"], c["after"], c["kind"]) for c in changes(data)}
        assert found == {
            "plugin_pair.second": (before[0], "9", "tls"),
            "plugin_tls": (before[1], "8", "tls"),
        }
        assert f"TLS of thread {thread}" in data["verdict"]["text"]


def test_locals_of_live_frames(gdb, all_cores):
    for more, frame, thread in (((), (1, "worker"), 2), (("main",), (4, "main"), 1)):
        gdb.run(f"uffd spawn {all_cores.names('names', *more)}")
        name = "on_stack[1]" if thread == 2 else "in_main"
        gdb.run(f"thread apply {thread} -q frame function {frame[1]}")
        data = gdb.call("through_pointer(55)")
        (change,) = changes(data)
        assert change["name"] == name and change["after"] == "55", change
        assert change["frame"]["function"] == frame[1]
        assert change["kind"] == "stack"
        level = change["frame"]["level"]
        gdb.run(f"thread {thread}")
        gdb.run(f"frame {level}")
        assert gdb.value(f"&{name}").endswith(change["address"])
        assert gdb.value(name) == change["before"]
        wrote = data["verdict"]["wrote"]
        assert [w["what"] for w in wrote] == ["stack"] and wrote[0]["thread"] == change["thread"]
        gdb.run("thread 1")
        text = gdb.run("uffd call through_pointer(55)")
        assert f"{name} of #{level} {frame[1]} ()" in text
        gdb.run("uffd call -keep through_pointer(56)")
        kept = gdb.json("uffd dirty -json")
        assert [c["name"] for c in changes(kept)] == [name]
        assert [c["name"] for c in changes(gdb.json("uffd dirty -all -json"))] == [name]


def test_only_bytes_that_differ_count(names):
    data = names.call("set_same(1)")
    assert changes(data) == [] and data["verdict"]["pure"] is True
    assert [p["bytes_changed"] for p in data["dirty"] if p["kind"] == "data"] == [0]
    text = names.run("uffd call set_same(1)")
    assert "written, nothing changed" in text
    assert "pure: nothing but its own stack" in text.split("\n")[1]


def test_scratch_is_one_line(names):
    text = names.run("uffd call set_globals(1)")
    assert len([line for line in text.split("\n") if " stack " in line]) == 1
    assert re.search(r"stack thread 1 +[\d,]+ B below the frame", text)


def test_text_and_json_agree(names):
    data = names.call("push(7)")
    text = names.run("uffd call push(7)")
    assert data["verdict"]["text"] in text
    assert f"head {changes(data)[0]['before']} → " in text
    for change in changes(data):
        assert change["name"] in text and change["after"] in text
    assert "malloc's own" in text


def test_malloc_is_told_apart(names):
    data = names.call("push(7)")
    own = changes(data, "malloc")
    assert any(c["name"].startswith("main_arena") for c in own)
    assert all(c["kind"] in ("heap", "data", "tls") for c in own)
    heap = [c for c in own if c["kind"] == "heap"]
    assert heap and all(c["raw"] and c["name"].startswith("[heap]+0x") for c in heap)
    data = names.call("balance(12)")
    assert changes(data) == []
    assert data["verdict"]["allocated"] == data["verdict"]["freed"] == {"blocks": 0, "bytes": 0}
    assert {w["what"] for w in data["verdict"]["wrote"]} <= {"malloc", "linker"}


def test_without_debug_information(gdb, all_cores):
    gdb.run(f"uffd spawn {all_cores.names('names-stripped')}")
    # No symbol says where the functions are; the exported one of the library is known.
    data = gdb.call("((int (*)(int)) plugin_set)(8)")
    assert {c["name"]: c["after"] for c in changes(data)} == {
        "plugin_pair.second": "9",
        "plugin_tls": "8",
    }
    assert "Traceback" not in gdb.transcript


def test_a_new_block_is_named_by_the_pointer_that_was_set(writes):
    """Not by the value, which leads there as well; also one of more than malloc's smallest."""
    data = writes.call("push(5)")
    found = {each["name"]: each["after"] for each in changes(data) if not each["raw"]}
    (block,) = [each for each in data["blocks"] if each["state"] == "allocated"]
    assert block["size"] == 40 and found["head->id"] == "105" and "head->next" in found, data
    assert not [name for name in found if name.startswith("$")], data
