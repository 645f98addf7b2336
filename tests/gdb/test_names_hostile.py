"""Naming over damaged memory and thin debug information: bounded, one report, never a traceback."""

from __future__ import annotations

import pytest
from harness.noted import changes, notes, told

pytestmark = pytest.mark.shared_gdb

LIMIT_S = 30
"""Seconds for one call: the search is bounded by counts, this only catches one without end."""


def calm(gdb):
    """Nothing went wrong inside."""
    for word in ("Traceback", "internal error", "Python Exception"):
        assert word not in gdb.transcript, gdb.transcript[-2000:]


def test_garbage_pointers_and_cycles(names):
    names.run("set var head = (struct node *) 0xdead0000beef")
    data = names.call("push(7)")
    assert {"head", "head->value", "head->next"} == {c["name"] for c in changes(data)}
    names.run("uffd reset")
    names.run("set var head->next->next = head")
    names.run("set var buckets[0] = (struct entry *) head")
    names.run("set var grown = (struct entry **) &head")
    names.run("set var mixed.label = (char *) 1")
    data = names.call("set_list(99)")
    found = {c["name"]: c["after"] for c in changes(data)}
    assert found["head->next->value"] == "99"
    text = names.run("uffd call set_strings(1)", timeout=LIMIT_S)
    assert "mixed.label" in text and "message" in text
    calm(names)


@pytest.mark.parametrize("program", [("heaps",), ("heaps", "arena"), ("heaps-static",)])
def test_damaged_chunks(opened, all_cores, program):
    gdb = opened(all_cores.heaps(*program))
    gdb.run("uffd call -keep damage(0)")
    for steps in (1, 3, 20):
        text = gdb.run(f"uffd call mixed({steps})", timeout=LIMIT_S)
        assert "discarded" in text
    # malloc itself may notice, and abort: that is told, too.
    data = gdb.call("usable()")
    assert data["blocks"] == []
    calm(gdb)


def test_whole_heap_overwritten(opened, all_cores):
    gdb = opened(all_cores.heaps())
    gdb.run("call (void *) memset((char *) blocks[0] ? blocks[0] : blocks[1], 0x41, 60000)")
    text = gdb.run("uffd call mixed(2)", timeout=LIMIT_S)
    assert "dirtied" in text
    calm(gdb)


def test_thousands_of_blocks_and_pages(opened, all_cores):
    gdb = opened(all_cores.heaps())
    text = gdb.run("uffd call mixed(20000)", timeout=LIMIT_S)
    assert "allocated" in text and len(text) < 40000, len(text)
    calm(gdb)


def test_optimised_code(opened, all_cores):
    gdb = opened(all_cores.names("names-o2"))
    for expression in ("set_globals(9)", "set_tls(8)", "set_list(3)", "set_hidden(3)"):
        data = gdb.call(expression)
        assert notes(data) and set(told(data)) >= set(notes(data)), expression
    calm(gdb)


@pytest.mark.own_gdb
def test_a_printer_that_fails_or_never_ends(names, tmp_path):
    script = tmp_path / "bad.py"
    script.write_text(
        "import gdb, itertools\n"
        "class Bad:\n"
        "    def __init__(self, value): pass\n"
        "    def to_string(self): return 'endless'\n"
        "    def children(self):\n"
        "        return ((str(i), gdb.Value(i)) for i in itertools.count())\n"
        "class Worse(Bad):\n"
        "    def to_string(self): raise KeyError('worse')\n"
        "def find(value):\n"
        "    name = value.type.strip_typedefs().name\n"
        "    return Bad(value) if name == 'pair' else Worse(value) if name == 'node' else None\n"
        "gdb.pretty_printers.insert(0, find)\n"
    )
    names.run(f"source {script}")
    for expression in ("set_globals(9)", "set_tls(8)", "push(7)", "set_list(9)"):
        data = names.json(f"uffd call -json {expression}")
        assert data["value"] == expression.split("(")[1].rstrip(")")
        assert changes(data)


@pytest.mark.own_gdb
def test_without_symbols_of_the_c_library_names_are_offsets(names):
    names.run("symbol-file")
    data = names.call("1 + 1")
    assert data["dirty"] == [] and data["verdict"]["pure"]
    calm(names)
