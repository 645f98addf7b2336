"""tools/mutants: what it makes of a source is another one, and still a source."""

from __future__ import annotations

import ast
import random
import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "tools" / "mutants"))
places = pytest.importorskip("places")
reach = pytest.importorskip("reach")
sys.path.pop(0)

SOURCE = """\
def f(a: int = 3, *b) -> "int | None":
    '''1 < 2'''
    if a < len(b) and not (a is None):
        raise ValueError(f"{a + 1}")
    g("é", x=min(a, 4)) if a else None
    h(a)
    return a
"""


def test_each_change_of_python():
    found = places.of_python("x.py", SOURCE)
    assert {(p.line, p.what) for p in found} == {
        (1, "3 → 4"), (3, "< → <="), (3, "and → or"), (3, "is → is not"),
        (3, "condition negated"), (4, 'not raised: raise ValueError(f"{a + 1}")'),
        (5, "condition negated"), (5, "no bound: min(a, 4)"), (5, "4 → 5"),
        (6, "not called: h(a)"),
    }  # fmt: skip
    for place in found:
        assert ast.dump(ast.parse(place.changed(SOURCE))) != ast.dump(ast.parse(SOURCE)), place


def test_each_change_of_c():
    source = """\
int f(int a)
{
\t/* a < b */
\tif (a < 3)
\t\treturn -EINVAL;
\tgive(a, "x < y");
}
"""
    found = places.of_c("x.c", source)
    assert {(p.line, p.what) for p in found} == {
        (4, "< → <="), (4, "3 → 0"), (5, "-EINVAL → 0"), (6, 'give(a, "x < y"); → ;')
    }  # fmt: skip


def test_the_package_has_places_that_parse_and_tests_that_reach_them():
    of, chance = reach.Reach(ROOT), random.Random(1)
    sources = places.sources(ROOT)
    for path in chance.sample([p for p in sources if p.stat().st_size > 2000], 12):
        text = path.read_text(encoding="utf-8")
        found = places.of_source(path, ROOT)
        assert len(found) > 3, path
        for place in chance.sample(found, 4):
            changed = place.changed(text)
            assert changed != text, place
            if path.suffix == ".py":
                ast.parse(changed)
        tests = of.of(path, 6)
        assert 1 <= len(tests) <= 6 and all(test.exists() for test in tests), path
    assert {path.suffix for path in sources} == {".py", ".c"}


def test_what_runs_in_a_process_of_its_own_is_reached_by_who_starts_it():
    of = reach.Reach(ROOT)
    for source, test in (
        ("recorder/service", "unit/test_recorder"),
        ("recorder/capture", "unit/test_recorder"),
        ("server/listen/serve", "unit/test_server_process"),
        ("native/toolchain", "unit/test_build"),
        ("replay/report", "replay/test_engines"),
    ):
        tests = of.of((ROOT / "gdb_uffd" / source).with_suffix(".py"), 10)
        assert (ROOT / "tests" / test).with_suffix(".py") in tests, source


def test_of_gdbs_tests_those_are_taken_that_speak_of_it():
    of = reach.Reach(ROOT).of(ROOT / "gdb_uffd/replay/attribute/heap_report.py", 8)
    assert ROOT / "tests/gdb/test_heap.py" in of
