"""What gdb does to memory to pass a string is not the called function's doing: memory before the
call is how gdb's own malloc left it, all of it at one instant."""

from __future__ import annotations

import re

import pytest
from harness import cores

pytestmark = pytest.mark.shared_gdb

FORTY = '"0123456789012345678901234567890123456789"'  # with its end 41 bytes: a block of 56
SAME = '"012345678901234567890123456789012345678"'  # a block of 40 bytes, as the program's own
SHORT = '"ab"'
HUGE = "'\"' + 200_000 * 'w' + '\"'"  # Python's; as big as to have a mapping of its own

ENGINES = ["wp-sync", "wp-async", "compare"]

TOOK = "allocated 1 block (104 B)"
FREED = "freed 1 block (40 B)"

CALLS = [
    ("touch({})", ""),
    ("take({})", TOOK),
    ("take_same({})", "allocated 1 block (40 B)"),
    ("drop({})", FREED),
    ("drop_and_take({})", ""),
    ("grow({})", "allocated 1 block (200 B) · freed 1 block (40 B)"),
    ("edit({})", ""),
]

NESTED = [
    (f"take_two({FORTY}, {SHORT})", TOOK),
    (f"take_two({SAME}, {SAME})", TOOK),
    (f"take(pass({SAME}))", TOOK),
    (f"touch(take_and_pass({FORTY}))", TOOK),
    # gdb's malloc for a call after one that ran
    (f"take_two(take_and_pass({SAME}), {SAME})", "allocated 2 blocks (208 B)"),
    (f"take({FORTY}) + take({FORTY})", "allocated 2 blocks (208 B)"),
    (f"take_same({SAME}) + take_same({SAME})", "allocated 2 blocks (80 B)"),
    (f"drop({SAME}) + touch({SAME})", FREED),
    (f"drop({FORTY}) + take_same({SAME})", f"allocated 1 block (40 B) · {FREED}"),
    (f"drop_text({SAME})", FREED),
    ("sum((char[3]){1, 2, 3}, 3)", TOOK),
    ("sum((char[40])*keep, 40)", TOOK),
    (f"(keep[1] = 5, touch({FORTY}))", ""),
    (f"label = {FORTY}", ""),
    ("malloc(100)", TOOK),
]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    try:
        return cores.core_of("strings", tmp_path_factory.mktemp("strings"), "-O0", "-w")
    except cores.NoKernelCore as why:
        pytest.skip(str(why))


@pytest.fixture(params=ENGINES)
def strings(opened, core, request):
    return opened(core, [f"set uffd engine {request.param}"])


def heap(text: str) -> str:
    """What the verdict says of blocks and mappings; a text without one is an error."""
    verdicts = [s for s in text.splitlines() if s.startswith(("wrote", "pure"))]
    assert len(verdicts) == 1, text
    heads = "allocated|freed|malloc|(un)?mapped"
    return " · ".join(s for s in verdicts[0].split(" · ") if re.match(heads, s))


@pytest.mark.parametrize("text", [SHORT, SAME, FORTY], ids=["short", "same", "forty"])
def test_blocks_of_the_call_alone(strings, text):
    for call, told in CALLS:
        asked = call.format(text)
        assert heap(strings.run(f"uffd call {asked}")) == told, asked


def test_blocks_of_a_call_that_was_kept(strings):
    for call, told in (("touch({})", ""), ("take({})", TOOK), ("grow({})", CALLS[5][1])):
        for text in (SAME, FORTY):
            asked = call.format(text)
            strings.run("uffd reset")
            strings.run(f"print {asked}")
            assert heap(strings.run("uffd dirty")) == told, asked
            assert heap(strings.run(f"uffd call touch({text})")) == "", asked


def test_arguments_among_calls(strings):
    for asked, told in NESTED:
        assert heap(strings.run(f"uffd call {asked}")) == told, asked


def test_an_argument_with_a_mapping_of_its_own(strings):
    strings.run("set max-value-size unlimited")
    strings.run(f"python big = {HUGE}")
    for asked, told in (
        ("touch(%s)", ""),
        ("take(%s)", TOOK),
        ("edit(%s)", ""),
        ("drop_text(%s)", "freed 1 block (196.0 KiB) · unmapped 196.0 KiB"),
        (f"take_two(take_and_pass({SAME}), %s)", "allocated 2 blocks (208 B)"),
        ("label = %s", ""),
    ):
        strings.run(f"python call = {asked!r} % big")
        text = strings.run("python gdb.execute('uffd call ' + call)")
        assert heap(text) == told, asked
        if asked.startswith("edit"):
            assert text.count("B, live) 77 → 23") == 2, text


def test_what_was_assigned_before_the_argument_is_told(strings):
    data = strings.call(f"(keep[1] = 5, touch({FORTY}))")
    assert any("5" in (c["after"] or "") for d in data["dirty"] for c in d["changes"]), data


def test_the_note_says_what_is_counted(strings):
    notes = strings.call(f"touch({SAME})")["notes"]
    assert any(note.endswith("counts from behind that") for note in notes), notes
    notes = strings.call(f"drop({SAME}) + touch({SAME})")["notes"]
    assert any(note.endswith("counts with what that changed") for note in notes), notes


def test_a_static_variable_that_the_library_wrote(strings):
    data = strings.call("spell(5)")
    told = {c["name"]: c["after"] for page in data["dirty"] for c in page["changes"]}
    assert told.get("spell::line", "").startswith('"n=5"'), told


ASSIGNED = [
    f"label = {FORTY}",
    "label = spell(3)",
    "keep[2] = touch(keep) + 5",
    "label = (char *)malloc(9)",
]


@pytest.mark.parametrize("expression", ASSIGNED)
def test_what_is_assigned_behind_a_call_is_told(opened, core, expression):
    """Also where the call is gdb's own, for a string that is assigned to a pointer."""
    gdb = opened(core)
    name = expression.partition(" ")[0]
    verdict = gdb.call(expression)["verdict"]
    assert not verdict["pure"], verdict
    where = "globals" if name == "label" else "heap"
    assert where in [each["what"] for each in verdict["wrote"]], verdict
    if name == "label":
        text = gdb.run(f"uffd call {expression}")
        assert "label 0x0" in text, text
