"""`uffd heap`, and what reports say of a heap that is damaged."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from harness.cores import NoKernelCore, kernel_core
from harness.extras import extra

from gdb_uffd.trace.store.importing import import_cores

pytestmark = pytest.mark.shared_gdb


@pytest.fixture(scope="session")
def broken(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Cores of tests/programs/blocks.c."""
    made: Dict[Any, Path] = {}

    def make(*arguments: str) -> Path:
        if arguments not in made:
            folder = tmp_path_factory.mktemp("blocks")
            try:
                made[arguments] = kernel_core([str(built / "blocks"), *arguments], folder)
            except NoKernelCore as why:
                pytest.skip(str(why))
        return made[arguments]

    return make


@pytest.fixture
def blocks(opened: Callable[..., Any], broken: Callable[..., Path]) -> Callable[..., Any]:
    """Opens a core of the program that ran with these arguments, in 80 columns."""
    return lambda *arguments: opened(broken(*arguments), ["set width 80"])


def lines(text: str) -> List[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_the_whole_heap(blocks):
    gdb = blocks("plain")
    text = gdb.run("uffd heap")
    assert re.match(r"glibc \d\.\d+ malloc · 1 arena · \d+ blocks in use", text.strip()), text
    told = [" ".join(line.split()) for line in lines(text)]
    for wanted in ("tcache of thread 1: 0x20: 1; 0x30: 7; 0xd0: 7", "fastbins 0x30: 1",
                   "small bins 0xd0: 1; 0x140: 1", "large bins from 0x1200: 1",
                   "nothing in it is damaged, as far as it tells"):  # fmt: skip
        assert wanted in told, text
    assert max(len(line) for line in text.splitlines()) < 80
    data = gdb.json("uffd heap -json")
    listed = gdb.json("uffd heap -json -free")["blocks"]
    assert len(listed) == sum(a["free"] for a in data["arenas"])
    assert all(block["list"] for block in listed)
    rows = lines(gdb.run("uffd heap -free"))
    assert len(rows) == len(listed) and all(", in" in row for row in rows)
    every = gdb.json("uffd heap -json -blocks")["blocks"]
    used = sum(a["used"] for a in data["arenas"])
    assert sum(block["state"] == "used" for block in every) == used
    assert gdb.json("uffd info -json")["vessel_pid"] is None


def test_a_block_by_its_holders(blocks):
    gdb = blocks("plain")
    name = "cache.items[2]->next->name"
    told = lines(gdb.run(f"uffd heap {name}"))
    assert re.match(r"0x[0-9a-f]+: 24 B, in use$", told[0])
    assert f"held by  {name}" in told and "type     char [24]" in told
    assert any(row.startswith("before") and row.endswith(": cache.items[2]->next") for row in told)
    assert any(row.startswith("after") and row.endswith(": input") for row in told)
    # From the middle of it, and by its number.
    assert "is at +0x3 of it" in gdb.run(f"uffd heap {name} + 3")
    address = told[0].split(":")[0]
    assert lines(gdb.run(f"uffd heap {address}")) == told
    data = gdb.json(f"uffd heap -json {address}")
    assert data["block"]["expression"] == name and data["block"]["type"] == "char [24]"
    assert "held by  mine of thread 1" in lines(gdb.run("uffd heap mine"))
    local = gdb.json("uffd heap -json used")["before"]
    assert re.fullmatch(r"local of #\d+ finish \(\)", local["expression"])
    mapped = lines(gdb.run("uffd heap aligned"))
    assert mapped[0].endswith("in use, with a mapping of its own") and "held by  aligned" in mapped


def test_pointers_to_freed_memory_are_named(blocks):
    gdb = blocks("plain")
    told = lines(gdb.run("uffd heap stale"))
    assert told[0].endswith("24 B, free, in thread 1's cache of 0x20, first of 1")
    assert "still pointed to by cache.items[4]; stale" in told
    gdb.run("set var cache.items[1]->next = stale")
    text = " ".join(gdb.run("uffd heap cache.items[1]").split())
    assert "cache.items[1]->next points into a freed block, 0x" in text
    assert "in thread 1's cache of 0x20" in text
    gdb.run("uffd reset")
    assert "freed block" not in gdb.run("uffd heap cache.items[1]")


@pytest.mark.parametrize(
    "damage, sentence, note",
    [
        ("overflow", "reads 0x4141414141414141: it would end behind 0x", "before it: input->text"),
        ("off-by-one", "reads 0x0: less than any block takes", "before it: input->text, 24 B"),
        ("use-after-free", "reads 0x4141414141414141 (protected, for 0x4141",
         "still pointed to by in_tcache"),
        ("double-free", "a block of the same list: it was freed twice", ""),
    ],
)  # fmt: skip
def test_damage_in_words(blocks, damage, sentence, note):
    gdb = blocks(damage)
    text = gdb.run("uffd heap")
    told = " ".join(text.split())
    assert "damaged: " in told and sentence in told and note in told, text
    assert max(len(line) for line in text.splitlines()) < 80
    data = gdb.json("uffd heap -json")
    assert sentence in data["damage"][0]["text"]


@pytest.mark.parametrize("damage", ["use-after-free", "double-free"])
def test_a_link_is_told_alike_in_the_report_and_the_heap(blocks, damage):
    """As it stands in memory, and where it leads."""
    gdb = blocks(damage)
    links = [d for d in gdb.json("uffd heap -json")["damage"] if d["what"].startswith("link-")]
    trouble = gdb.call("calloc(1, 5000)")["verdict"]["heap_damage"]
    assert trouble["what"] == links[0]["what"] and trouble["block"] == links[0]["block"]
    assert (trouble["value"], trouble["leads"]) == (links[0]["value"], links[0]["leads"])
    stands = int(gdb.value(f"*(unsigned long *) {trouble['block']}"), 0)
    assert int(trouble["value"], 16) == stands
    assert int(trouble["leads"], 16) == stands ^ int(trouble["block"], 16) >> 12
    for text in (links[0]["text"], gdb.call("calloc(1, 5000)")["verdict"]["heap_trouble"]):
        assert f"reads {trouble['value']} (protected, for {trouble['leads']}), " in text


def test_a_report_says_what_is_damaged(blocks):
    gdb = blocks("overflow")
    text = " ".join(gdb.run("uffd call calloc(1, 5000)").split())
    assert "malloc's heap cannot be read (the size of the block at 0x" in text, text
    assert "before it: input->text, 24 B at 0x" in text
    data = gdb.call("calloc(1, 5000)")["verdict"]
    assert data["heap_damage"]["what"] == "size-beyond"
    assert data["heap_damage"]["value"] == hex(0x4141414141414141)
    assert data["heap_notes"][0].startswith("before it: input->text, ")


def test_a_long_list_is_no_loop(blocks):
    """100,000 blocks in fastbins."""
    gdb = blocks("many", "400000")
    data = gdb.call("calloc(1, 5000)")["verdict"]
    assert data["heap_damage"] is None, data
    assert data["allocated"]["blocks"] == 1


def test_an_assignment_leaves_the_heap_readable(blocks):
    """No thread ran, so that no thread's cache was looked for."""
    gdb = blocks("plain")
    verdict = gdb.call("cache.items[0]->key = 77")["verdict"]
    assert verdict["heap_trouble"] is None and verdict["text"] == "wrote heap"
    assert "held by  cache.items[0]->name" in gdb.run("uffd heap cache.items[0]->name")


def test_a_call_that_does_the_damage_is_told(blocks):
    gdb = blocks("plain")
    text = " ".join(gdb.run("uffd call spoil()").split())
    assert "malloc's heap cannot be read (the size of the block at 0x" in text, text
    assert "before it: input->text, 24 B at 0x" in text
    assert "it was whole before: this call did it" in text
    assert "nothing in it is damaged" in gdb.run("uffd heap")
    gdb.run("print spoil()")
    assert "before it: input->text, 24 B" in " ".join(gdb.run("uffd dirty").split())
    assert "damaged: 1 fault" in gdb.run("uffd heap")


def test_since_which_snapshot(gdb, broken, tmp_path):
    cores = [broken(name) for name in ("plain", "plain", "use-after-free", "overflow", "overflow")]
    trace = import_cores([str(core) for core in cores], str(tmp_path / "five")).path
    gdb.run(f"uffd spawn {trace}")
    gdb.run("uffd goto end")
    assert "whole at snapshot 2, broken at 3: `uffd goto 3`" in gdb.run("uffd heap")
    text = " ".join(gdb.run("uffd call calloc(1, 5000)").split())
    assert "whole at snapshot 2, broken at 3: `uffd goto 3`" in text, text
    gdb.run("uffd goto 2")
    assert "whole at snapshot 1, broken at 2: `uffd goto 2`" in gdb.run("uffd heap")
    gdb.run("uffd goto 1")
    assert "nothing in it is damaged" in gdb.run("uffd heap")


def test_arenas_of_threads(blocks):
    gdb = blocks("threads", "5")
    data = gdb.json("uffd heap -json")
    assert len(data["arenas"]) == 6 and data["damage_count"] == 0
    text = gdb.run("uffd heap")
    assert " ".join(text.split()).count(" · 22 in use, 1 free · ") == 5
    for number in range(2, 7):
        assert f"tcache       of thread {number}: 0x50: 1" in text


@pytest.mark.parametrize(
    "typed, said",
    [
        ("uffd heap nosuch", "No symbol"),
        ("uffd heap -blocks used", "a list is of the whole heap"),
        ("uffd heap 0x10", "0x10 is not mapped"),
        ('uffd heap "abc"', "is neither an address nor in memory"),
        ("uffd heap &cache", "is in data of blocks: cache, in .bss; in no block of the heap"),
        ("uffd heap main", "is in code of blocks: main, in .text; in no block of the heap"),
        ("uffd heap -bogus", "bogus"),
        ("uffd heap $sp", "is in a stack"),
    ],
)
def test_what_is_no_block(blocks, typed, said):
    gdb = blocks("plain")
    text = gdb.run(typed)
    assert said in text and len(text.strip().splitlines()) <= 2, text
    assert "nothing" in gdb.run("uffd dirty -all")


def test_completion(blocks):
    gdb = blocks("plain")
    assert "uffd heap -blocks" in gdb.run("complete uffd heap -b")
    assert "uffd heap cache" in gdb.run("complete uffd heap cach")
    assert json.loads(gdb.run("uffd heap -json").strip())["schema"] == 2


@pytest.mark.parametrize("name", ["jemalloc", "mimalloc", "tcmalloc"])
def test_other_allocators_are_told(gdb, built, tmp_path, name):
    (library,) = {p.resolve() for p in extra("allocators").glob(f"usr/lib/*/lib{name}*.so.?")
                  if "debug" not in p.name}  # fmt: skip
    env = {**os.environ, "LD_PRELOAD": str(library)}
    gdb.run(f"uffd spawn {kernel_core([str(built / 'blocks'), 'plain'], tmp_path, env)}")
    told = lines(gdb.run("uffd heap"))
    assert told[0] == f"malloc is {name}'s, in {library}"
    assert re.match(r"\d+ anonymous mappings? \(", told[1]) and len(told) == 3
    data = gdb.json("uffd heap -json")
    assert data["allocator"]["name"] == name and not data["arenas"] + data["damage"]
    told = lines(gdb.run("uffd heap used"))
    assert told[0].endswith(f": {name}'s blocks are not read")
    assert told[1].startswith("pointed to by used")  # its own words may, too
    size = re.search(r"`(uffd call .*)`", told[-1])
    assert size is not None
    assert int(re.search(r"\$\d+ = (\d+)", gdb.run(size[1]))[1]) >= 123


@pytest.mark.parametrize("program", ["blocks", "blocks-static"])
def test_a_threads_vector_of_thread_locals_is_told(gdb, built, tmp_path, program):
    try:
        core = kernel_core([str(built / program), "threads", "2"], tmp_path / "run")
    except NoKernelCore as why:
        pytest.skip(str(why))
    gdb.run(f"uffd spawn {core}")
    told = gdb.json("uffd heap -blocks -json")["blocks"]
    names = []
    for block in [each for each in told if each["state"] == "used" and each["size"] > 200][:40]:
        found = gdb.json(f"uffd heap -json {block['start']}")["block"]["expression"]
        names += [found] if found.partition(" of thread")[0].endswith("dtv") else []
    typed = r"\(\*\(struct pthread \*\) 0x[0-9a-f]+\)(\.\w+)*\.dtv"
    assert len(names) == 2, names
    for name in names:
        assert re.fullmatch(rf"(struct pthread's dtv|{typed}) of thread \d", name), name
