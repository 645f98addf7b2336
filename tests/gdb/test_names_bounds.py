"""No name goes past an object: a pointer to one is one, unless something tells of more."""

from __future__ import annotations

import json
import os
import re

import pytest
from harness import cores
from harness.extras import extra
from harness.noted import changes

pytestmark = pytest.mark.shared_gdb

PAST = re.compile(r"(datastack_chunk|name|value|\)|me_key)\[\d+\]\.")
"""Members of CPython's that point to one object."""


@pytest.fixture
def arrays(opened, all_cores):
    return opened(all_cores.arrays())


def names(gdb, call):
    return {c["name"] for c in changes(gdb.call(call)) if c["kind"] == "heap"}


def test_an_object_that_begins_with_another_is_no_array(arrays):
    found = names(arrays, "set_text(7)")
    assert not [name for name in found if re.search(r"\[\d+\]\.", name)], found
    assert {"value+0x10", "others[2]+0x60", "shop.owner+0x68"} <= found, found
    assert names(arrays, "use(9)") == {"value->uses", "others[2]->uses"}


def test_a_number_or_an_end_beside_the_pointer_tells_of_more(arrays):
    found = names(arrays, "set_items(7)")
    assert found == {"shop.items[2].price", "shop.items[5].name", "span.begin[1].price"}
    arrays.run("set var shop.room = 0")  # three of six: at least half
    assert "shop.items[2].price" in names(arrays, "set_items(7)")
    arrays.run("set var shop.count = 1")
    arrays.run("set var span.end = 0")
    found = names(arrays, "set_items(7)")
    assert not [name for name in found if "[" in name], found
    arrays.run("set var shop.count = 600")
    assert not [name for name in names(arrays, "set_items(7)") if "[" in name]


def test_numbers_of_something_else_beside_the_pointer(arrays):
    assert names(arrays, "set_shelf(7)") == {"shelf.top->price", "shelf.top+0x18"}


def test_functions_in_a_row_are_one_object(arrays):
    assert names(arrays, "set_device(7)") == {"deeds->close", "deeds+0x28"}


def test_numbers_in_a_row(arrays):
    assert names(arrays, "set_pairs(7)") == {"pairs[3].right"}
    assert names(arrays, "set_alone(7)") == {"alone->price", "alone+0x38"}
    assert not [name for name in names(arrays, "set_body(7)") if "size[" in name]


def test_python(gdb, tmp_path):
    """Its objects begin with PyObject, its stack's chunks with a header."""
    home = extra("python-dbg") / "usr"
    (python,) = (home / "bin").glob("python3.*-dbg")
    script = tmp_path / "p.py"
    script.write_text(
        "import os\nnames = {('k%d' % i): [i, str(i) * 20] for i in range(300)}\n"
        "class A:\n  def __init__(s): s.x = 1\nobjs = [A() for _ in range(50)]\nos.abort()\n"
    )
    environment = {"PYTHONMALLOC": "malloc", "PYTHONHOME": str(home), "PATH": os.environ["PATH"]}
    core = cores.kernel_core([str(python), "-S", str(script)], tmp_path / "work", environment)
    gdb.run(f"uffd spawn {core}", timeout=60)
    told = 0
    for call in ("(int)PyRun_SimpleString(\"names['new'] = A(); A.z = 5; A.z\")", "PyGC_Collect()"):
        data = json.loads(gdb.run(f"uffd call -json {call}", timeout=120))
        for change in changes(data):
            told += 1
            found = re.search(
                r"(?:datastack_chunk|name|value|\)|me_key)\[(\d+)\]\.", change["name"]
            )
            assert not found, change["name"]
    assert told > 100


def test_no_name_goes_past_its_object(gdb, all_cores):
    gdb.run(f"uffd spawn {all_cores.marks()}")
    base = int(gdb.value("(unsigned long)&flag"), 0)
    fenced = int(gdb.value("(unsigned long)&fenced"), 0) - base
    wanted = {2: r"(sized_)?flag\+0x2", 0x3008: r"bare\+0x8", fenced + 0x20000: r"fenced\+0x20000"}
    data = gdb.call("poke(8)")
    told = {int(c["address"], 16) - base: c["name"] for c in changes(data) if c["name"] != "where"}
    assert set(told) == {*wanted, 0x338, 0x703000, fenced + 0x40008}
    for offset, name in told.items():
        assert re.fullmatch(wanted.get(offset, r"marks\+0x[0-9a-f]+"), name), (offset, name)
    for at, name in ((base + 0x338, ""), (base + 0x703000, ""), (base + 2, r"(sized_)?flag\+0x2")):
        told_why = gdb.run(f"uffd why {at:#x}").split("\n")[0]
        assert re.match(rf"({name or hex(at & -8) + '|' + hex(at)})[ ,]", told_why), told_why
