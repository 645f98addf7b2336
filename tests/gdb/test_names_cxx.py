"""Names of what a call changed in C++: elements of containers, bases, namespaces, templates."""

from __future__ import annotations

import re

import pytest
from harness.noted import changes, notes, told

pytestmark = pytest.mark.shared_gdb


def test_scalars_bases_and_namespaces(containers):
    for expression, special in (
        ("scalars(55)", {"space::invisible", "space::anonymous.b"}),
        ("own(3)", set()),
        ("bases(77)", set()),
    ):
        data = containers.call(expression)
        assert told(data) == notes(data)
        for change in changes(data):
            name = change["name"]
            if name in special or "[" not in name:
                assert containers.value(name) == change["before"], name


def test_elements_of_containers(containers):
    data = containers.call("elements(44)")
    assert told(data) == notes(data)
    assert {c["after"] for c in changes(data)} == {"44"}
    before = {c["name"]: c["before"] for c in changes(data)}
    assert before['ages["ada"]'] == "36" and before["database->rows[1][0]"] == "1"
    assert data["verdict"]["allocated"] == {"blocks": 0, "bytes": 0}
    assert [w["what"] for w in data["verdict"]["wrote"]][:2] == ["globals", "heap"]


def test_the_class_that_an_object_really_is_of(containers):
    data = containers.call("dynamic(8)")
    names = {
        "static_cast<Square *>(square)->side": "((Square *) square)->side",
        "static_cast<Sticker *>(tagged)->price": "((Sticker *) tagged)->price",
        "tagged->tag": "((Sticker *) tagged)->tag",
    }
    assert told(data) == sorted((names[n], a, s) for n, a, s in notes(data))
    for change in changes(data):
        assert containers.value(change["name"]) == change["before"]


def test_strings_before_and_after(containers):
    data = containers.call("texts(1)")
    found = {c["name"]: (c["before"], c["after"]) for c in changes(data) if c["note"] != "inner"}
    long = '"a string that is longer than the small buffer of the class"'
    assert found == {
        "title": (long, long.replace("string", "sZring")),
        "brief": ('"abc"', '"aQc"'),
        "words[1]": ('"one"', '"uno"'),
        "database->names[1]": ('"yy"', '"zz"'),
        "both.second": ('"first"', '"second"'),
    }


def test_what_is_inserted_and_erased(containers):
    data = containers.call("inserts(9)")
    found = {c["name"]: (c["before"], c["after"]) for c in changes(data) if c["note"] != "inner"}
    assert found['ages["barbara"]'] == (None, "9")
    assert found["words[7]"] == (None, '"seven is longer than fifteen"')
    assert found["chain[3]"] == (None, "9")
    assert found["ages"] == ("std::map with 3 elements", "std::map with 4 elements")
    assert found["primes"][1] == "std::vector of length 6, capacity 10"
    assert found["primes[5]"][1] == "9"
    assert data["verdict"]["allocated"]["blocks"] == 6
    assert data["verdict"]["freed"]["blocks"] == 1
    data = containers.call("erases(4)")
    found = {c["name"]: (c["before"], c["after"]) for c in changes(data) if c["note"] != "inner"}
    assert found['ages["alan"]'] == ("41", None)
    assert found["bag"] == ("std::set with 3 elements", "std::set with 2 elements")
    assert data["verdict"]["freed"]["blocks"] == 3


def test_bits_by_their_number(containers):
    found = {c["name"]: (c["before"], c["after"]) for c in changes(containers.call("marking(1)"))}
    assert {n.lower(): [str(t).lower() for t in both] for n, both in found.items()} == {
        "marks[1]": ["false", "true"],
        "mask[1]": ["none", "1"],
    }


def test_the_counts_of_a_shared_pointer_are_its_own(containers):
    data = containers.call("replaces(6)")
    assert not [c for c in changes(data) if c["name"].startswith("block ")]
    found = {c["name"]: (c["after"], c["note"]) for c in changes(data)}
    assert found["shared->side"] == ("6", "new") and found["shared"][1] == "inner"


def test_kept_effects_are_told_alike(containers):
    for expression in ("elements(44)", "texts(1)", "inserts(9)", "erases(2)"):
        once = containers.call(expression)
        kept = containers.call(expression, "-keep")
        again = containers.json("uffd dirty -json")
        containers.run("uffd reset")

        def told_of(data):
            return [(c["name"], c["before"], c["after"]) for c in changes(data)]

        assert told_of(once) == told_of(kept) == told_of(again)


def test_from_a_frame_of_the_c_library(containers):
    """The printers look C++ names up, which fails while a C frame is selected."""
    containers.run("frame 0")
    data = containers.call("texts(1)")
    assert ('"abc"', '"aQc"') in [(c["before"], c["after"]) for c in changes(data)]
    assert "Python Exception" not in containers.transcript
    assert 'auto; currently c"' in containers.run("show language")


def test_a_base_without_members_has_no_bytes(start_gdb, all_cores):
    gdb = start_gdb()
    gdb.run("disable pretty-printer")
    gdb.run(f"uffd spawn {all_cores.containers()}")
    gdb.run("disable pretty-printer")
    names = [c["name"] for c in changes(gdb.call("texts(1)"))]
    assert "brief._M_dataplus" not in names and any(n.startswith("brief._M") for n in names)


def test_without_printers(start_gdb, all_cores):
    gdb = start_gdb()
    gdb.run("disable pretty-printer")
    gdb.run(f"uffd spawn {all_cores.containers()}")
    gdb.run("disable pretty-printer")
    data = gdb.call("elements(44)")
    found = {(int(c["address"], 16), c["size"]): c["name"] for c in changes(data)}
    expected = {(a, s): n for n, a, s in notes(data)}
    # Those whose nodes' types nothing tells are told by their blocks.
    same = [place for place, name in expected.items() if found.get(place) == name]
    names = {expected[place] for place in same}
    assert {"primes[2]", "both.first", "database->box.nameless", "owned->side"} <= names
    touched = {
        a
        for c in changes(data)
        for a in range(int(c["address"], 16), int(c["address"], 16) + c["size"])
    }
    assert all(a in touched for a, _ in expected)


def test_a_printer_that_calls_functions(containers, tmp_path):
    """Nothing may run while values are shown as they were."""
    script = tmp_path / "calls.py"
    script.write_text(
        "import gdb\n"
        "class P:\n"
        "    def __init__(self, value): self.value = value\n"
        "    def to_string(self): return 'area %s' % gdb.parse_and_eval('age_of_all()')\n"
        "class Q(P):\n"
        "    def to_string(self): return 'made %s' % gdb.parse_and_eval('scalars(1)')\n"
        "def find(value):\n"
        "    name = value.type.strip_typedefs().name or ''\n"
        "    return Q(value) if name == 'Square' else P(value) if name == 'Base' else None\n"
        "gdb.pretty_printers.insert(0, find)\n"
    )
    containers.run(f"source {script}")
    for expression in ("elements(44)", "bases(77)"):
        data = containers.call(expression)
        assert data["value"] == expression.split("(")[1].rstrip(")")
        assert len(changes(data)) >= 3
    assert containers.value("space::visible") == "1"
    assert re.search(r"^\* 1 ", containers.run("info threads"), re.M)


def values_of(data):
    return {c["name"]: (c["after"], c["note"]) for c in changes(data)}


def test_a_pointer_that_an_optional_or_a_variant_holds(holders):
    """It is the program's: what lies behind is told as behind any other."""
    said = values_of(holders.call("engages(40)"))
    (name,) = [n for n in said if n.endswith("->value")]
    assert said[name] == ("41", None) and holders.value(name) == "1"
    assert ("label", "inner") in [
        (c["name"], c["note"]) for c in changes(holders.call("engages(40)"))
    ]
    told = holders.run("uffd heap last")
    names = re.search(r"pointed to by (.*)", told)[1].split("; ")
    assert [holders.value(each) == holders.value("last") for each in names] == [True] * 3


def test_what_is_dead_leads_nowhere(holders):
    holders.run("uffd call -keep lets_go(7)")
    dead = "perhaps._M_payload._M_payload._M_value"
    assert "(holds it no more)" in holders.run("uffd heap last")
    holders.run("print last = 0")
    told, at = holders.run(f"uffd heap {dead}"), holders.value(f"(long) {dead}")
    assert f"held by  {dead} (holds it no more)" in told and "type" not in told
    said = values_of(holders.call(f"writes_to((Node *) {at})"))
    assert not [name for name in said if "perhaps" in name or "either" in name], said


def test_the_elements_that_a_vector_got_are_new(holders):
    said = values_of(holders.call("appends(9)"))
    assert said["roomy[0]"] == ("9", None) and said["roomy[3]"] == ("9", "new")
    assert said["roomy[4]"] == ("10", "new") and said["nodes[2].value"] == ("9", "new")
    assert said["nodes[2].next"][1] == "new"
