"""What -json prints is what docs/json.md describes: every field, its type, and no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, Dict, List, Tuple

import pytest
from harness import ROOT
from harness.asking import policy_core
from harness.cores import kernel_core

pytestmark = pytest.mark.shared_gdb

Fields = Dict[str, str]
"""Names with their types, as the page has them."""

ADDRESS = r"0x[0-9a-f]+"


def described() -> Dict[str, Fields]:
    """The tables of docs/json.md, by what they are about: "call", "dirty", "changes", ..."""
    tables: Dict[str, Fields] = {}
    about = ""
    for line in (ROOT / "docs" / "json.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (`.*?`) \|(.*?)\| ", line)
        if row:
            names = re.findall(r"`(\w+)`", row[1])
            types = re.split("; |, (?!only then)", row[2].strip())
            optional = types[-1].endswith(", only then")
            for index, name in enumerate(names):
                kind = types[min(index, len(types) - 1)]
                tables[about][name] = kind + (
                    ", only then" if optional and "only" not in kind else ""
                )
            continue
        title = re.match(r"# What `uffd (\w+) -json` prints$|One entry of `(\w+)`|`(\w+)`:$", line)
        if title:
            about = next(name for name in title.groups() if name)
            tables[about] = {}
    return tables


DOCS = described()
SHARED = {
    name: DOCS["dirty"][name] for name in ("start", "end", "kind", "mapping", "bytes_changed")
}
DOCS["gdb_dirty"] = {**SHARED, **DOCS["gdb_dirty"]}
for _field in DOCS["trace"]:
    DOCS["trace"][_field] = DOCS["trace"][_field] or DOCS["call"][_field]
for _field in DOCS["touched"]:
    DOCS["touched"][_field] = DOCS["touched"][_field] or DOCS["dirty"][_field]

NESTED = ("dirty", "gdb_dirty", "blocks", "verdict", "writes", "touched", "blocked")
NESTED += ("checks", "files", "gdb", "end")


def is_of(kind: str, value: Any) -> bool:
    """Whether a value is of a type as the page writes it."""
    if kind.endswith(" or null"):
        return value is None or is_of(kind[: -len(" or null")], value)
    if kind == "address":
        return isinstance(value, str) and re.fullmatch(ADDRESS, value) is not None
    if kind == "list of strings":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    types: Dict[str, type] = {"string": str, "boolean": bool, "object": dict, "list": list}
    return isinstance(value, types[kind])


def check(data: Dict[str, Any], about: str, without: Tuple[str, ...] = ()) -> List[str]:
    """What of the object is otherwise than described."""
    fields = DOCS[about]
    wrong = [f"{about}.{name} is not described" for name in data if name not in fields]
    for name, kind in fields.items():
        optional = kind.endswith(", only then")
        if name not in data:
            if not optional and name not in without:
                wrong.append(f"{about}.{name} is missing")
        elif not is_of(kind.removesuffix(", only then"), data[name]):
            wrong.append(f"{about}.{name} is no {kind}: {data[name]!r}")
    for name in data:
        if name in NESTED or (name, about) == ("changes", "dirty"):
            items = data[name] if isinstance(data[name], list) else [data[name]]
            # Others by that name are a count, or an address.
            wrong += [
                text for item in items if isinstance(item, dict) for text in check(item, name)
            ]
    return wrong


def test_the_page_has_its_tables():
    assert set(DOCS) == {
        *(
            "call",
            "why",
            "trace",
            "dirty",
            "gdb_dirty",
            "blocks",
            "changes",
            "verdict",
            "blocked",
            "end",
        ),
        *("writes", "touched", "doctor", "checks", "files", "gdb"),
        *("heap", "allocator", "arenas", "lists", "damage", "heap_block"),
    }
    assert all(DOCS.values())


@pytest.mark.parametrize(
    "call",
    [
        *("push(5)", "count(3)", "members()", "maps()", "faults()", 'say("text")', "nosuch()"),
        *("by_kernel()", "different()", "counter", "drops()", "inlines(1)"),
    ],
)
def test_call_dirty_why_and_trace(writes, call):
    data = writes.call(call)
    assert check(data, "call") == [] and data["schema"] == 2
    data = writes.json("uffd trace -json " + call)
    assert check(data, "trace") == [] and data["schema"] == 2
    writes.run(f"uffd call {call}")
    head = ("expression", "value", "type", "wall_ms")
    for options in ("", " -all", " -full"):
        data = writes.json("uffd dirty -json" + options)
        assert check(data, "call", head) == []
        assert not set(data) & {*head, "error", "stopped", "blocked"}
    if call not in ("nosuch()", "counter"):
        for name in ("counter", "table", "own"):
            data = writes.json(f"uffd why -json {name}")
            assert check(data, "why") == [] and data["schema"] == 2


def test_a_wait(gdb, tmp_path):
    gdb.run(f"uffd spawn {policy_core(tmp_path)}")
    data = gdb.call("lock_queue()")
    assert check(data, "call") == []
    assert data["end"]["kind"] == "wait" and data["end"]["wait"]["kind"] == "lock"
    assert data["stopped"]["reason"] == data["blocked"]["text"]
    owner = data["blocked"]["owner"]
    assert set(owner) == {"thread", "tid", "name", "function"}
    gdb.run("python from gdb_uffd.client.names import blocked; blocked.note = lambda session: None")
    bare = gdb.call("lock_queue()")  # its frames were not looked at
    assert check(bare, "call") == [] and bare["blocked"].keys() == data["blocked"].keys()
    assert bare["blocked"]["owner"] == owner and bare["blocked"]["lock"] is None
    assert bare["blocked"]["call"] == bare["blocked"]["system_call"] == "futex"


def test_the_doctor(gdb, all_cores):
    code = "import sys; from gdb_uffd.cli import main; sys.exit(main())"
    core = str(all_cores.writes())
    for words, told in (([], {"checks"}), ([core], {"core", "whole", "files", "advice"})):
        command = [sys.executable, "-I", "-c", code, "doctor", "--json", *words]
        shell = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
        inside = gdb.json(" ".join(["uffd doctor -json", *words]))
        for data in (shell, inside):
            assert check(data, "doctor") == [] and data["schema"] == 2
            assert told < set(data)
        assert set(inside) - set(shell) == {"gdb"}
        assert not set(shell) & ({"checks"} if words else {"files", "core"})


def test_heap(gdb, built, tmp_path):
    core = kernel_core([str(built / "blocks"), "overflow"], tmp_path)
    gdb.run(f"uffd spawn {core}")
    data = gdb.json("uffd heap -json")
    assert check(data, "heap") == [] and data["schema"] == 2
    parts = ("arenas", "lists", "damage")
    assert all(data[part] for part in parts)
    assert [wrong for part in parts for each in data[part] for wrong in check(each, part)] == []
    assert check(data["allocator"], "allocator") == []
    for name in ("used", "stale", "mapped", "&cache"):
        data = gdb.json(f"uffd heap -json {name}")
        assert check(data, "heap_block") == [] and data["schema"] == 2
    data = gdb.call("calloc(1, 5000)")
    assert check(data, "call") == []
    without = ("text", "notes")
    assert check(data["verdict"]["heap_damage"], "damage", without) == []
