"""Which engine is chosen, given what works: no userfaultfd needed."""

from __future__ import annotations

import pytest
from harness import ROOT

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import ENGINES, TELLING, UffdError
from gdb_uffd.replay.trackers import FOR_CALLS, FOR_MASSES, NEEDED, TRACKERS, choose


def machine(*working):
    """`failure` of a kernel on which only these engines work."""
    return lambda name: "" if name in working else f"no {name} here"


def test_every_engine_is_known_everywhere():
    for names in (FOR_CALLS, FOR_MASSES, TRACKERS):
        assert sorted(names) == sorted(ENGINES)
    files = (ROOT / "gdb_uffd" / "native" / "pager").glob("tracker_*.c")
    assert sorted(path.stem[8:].replace("_", "-") for path in files) == sorted(ENGINES)
    help_ = (ROOT / "gdb_uffd" / "client" / "session" / "settings.py").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for name in ENGINES:
        assert lib.tracker_named(name.encode()).tells_first == (name in TELLING)
        assert f"\n    {name}: " in help_ and f"\n| `{name}` | " in page
    assert "|".join(("auto", *ENGINES)) in page


@pytest.mark.parametrize("name", ENGINES)
def test_what_an_engine_cannot_do_without_has_words(name):
    lacking = ffi.new("uint64_t *")
    lib.tracker_features(lib.tracker_named(name.encode()), 0, lacking)
    assert lacking[0] and not lacking[0] & ~sum(NEEDED)


def test_another_name_is_none_of_them():
    assert lib.tracker_named(b"wp") == ffi.NULL


@pytest.mark.parametrize(
    ("working", "mass", "chosen"),
    [
        (ENGINES, False, "wp-sync"),
        (ENGINES, True, "wp-async"),
        (("wp-sync", "soft-dirty", "compare"), True, "wp-sync"),
        (("soft-dirty", "compare"), False, "compare"),
        (("soft-dirty",), False, "soft-dirty"),
    ],
)
def test_auto_takes_the_best_that_works(working, mass, chosen):
    choice = choose("auto", mass, machine(*working))
    assert choice.name == chosen
    for better in (FOR_MASSES if mass else FOR_CALLS)[: FOR_CALLS.index(chosen)]:
        assert better in working or f"no {better} here" in choice.why


def test_what_is_tried_first_is_not_tried_in_vain():
    tried = []

    def failure(name):
        tried.append(name)
        return ""

    choose("auto", False, failure)
    assert tried == ["wp-sync"]


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_asked_for_is_taken_or_refused(name):
    assert choose(name, True, machine(name)).name == name
    others = [other for other in ENGINES if other != name]
    with pytest.raises(UffdError, match=f"{name} does not work here: no {name} here") as caught:
        choose(name, False, machine(*others))
    assert "set uffd engine auto" in str(caught.value)


def test_where_nothing_works_the_first_reason_is_told():
    with pytest.raises(UffdError, match=r"^no wp-sync here$"):
        choose("auto", False, machine())
