"""`set uffd engine`, and calls under each engine that works here."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from gdb_uffd.protocol.model import ENGINES, TELLING

pytestmark = pytest.mark.shared_gdb


def doctor(*options):
    code = "import sys; from gdb_uffd.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "doctor", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture(scope="module")
def working():
    checks = doctor()
    return [name for name in ENGINES if checks[f"engine {name}"]["ok"]]


@pytest.fixture(params=ENGINES)
def engine(request, working):
    if request.param not in working:
        pytest.skip(f"{request.param} does not work here: see gdb-uffd doctor")
    return request.param


def changed(data):
    return {p["start"]: p["bytes_changed"] for p in data["dirty"] if p["bytes_changed"]}


def named(data):
    kinds = ("data", "tls", "heap")
    return {
        (c["name"], c["before"], c["after"])
        for p in data["dirty"] if p["kind"] in kinds
        for c in p["changes"]
    }  # fmt: skip


def by_gdb(data):
    """Without the breakpoints, which the first call alone inserts."""
    return {p["start"]: p["writers"] for p in data["gdb_dirty"] if p["bytes_changed"]}


def test_a_call_is_the_same_under_each(sample, engine):
    assert '"auto"' in sample.run("show uffd engine")
    by_default = sample.call("push(7)")
    assert by_default["engine"] == "wp-sync"
    assert sample.run(f"set uffd engine {engine}").strip() == ""
    data = sample.call("push(7)")
    assert (data["value"], data["engine"]) == ("1042", engine)
    assert changed(data) == changed(by_default)
    assert named(data) == named(by_default)
    assert all((p["first_write"] is None) == (engine not in TELLING) for p in data["dirty"])
    again = sample.call("push(7)")
    assert (again["value"], changed(again)) == ("1042", changed(data))
    text = sample.run("uffd call push(7)")
    assert ("who wrote" in text) == (engine not in TELLING), text
    assert engine in sample.run("uffd info")


def test_what_gdb_writes_is_told_apart(sample, engine):
    sample.run(f"set uffd engine {engine}")
    data = sample.call("counter = 5")
    (page,) = data["dirty"]  # what the expression assigns is meant: by nobody else, and named
    assert not data["gdb_dirty"] and page["first_write"] is None, data
    assert [c["name"] for c in page["changes"]] == ["counter"], data
    sample.run("break push")
    assert re.search(r"Breakpoint \d+, push \(value=7\)", sample.run("print push(7)"))
    sample.run("set var value = 8")
    sample.run("delete")
    assert "= 1042" in sample.run("finish")
    assert sample.value("head->value") == "8"


def test_a_string_argument(zoo, engine):
    by_default = zoo.call('mix(1, 2.0, "hello")')
    zoo.run(f"set uffd engine {engine}")
    data = zoo.call('mix(1, 2.0, "hello")')
    assert data["value"] == by_default["value"]
    # gdb calls malloc to make room for the string; what that wrote is not the program's.
    assert by_gdb(data) == by_gdb(by_default)
    assert any("malloc" in who for who in by_gdb(data).values())
    assert changed(data) == changed(by_default)


def test_kept_effects_stay_and_tell(sample, working):
    sample.run("print push(7)")
    told = sample.run("set uffd engine compare")
    assert "keeps the engine wp-sync" in told and "uffd reset" in told
    assert sample.value("counter") == "1042"
    assert sample.call("push(8)")["engine"] == "wp-sync"
    sample.run("uffd reset")
    assert sample.call("push(8)")["engine"] == "compare"


def test_it_may_be_set_before_the_core(gdb, all_cores, working):
    gdb.run("set uffd engine compare")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    assert "compare, chosen when" in gdb.run("uffd info")
    assert gdb.call("push(7)")["engine"] == "compare"


def test_what_does_not_work_is_refused_and_not_set(sample, working):
    lacking = [name for name in ENGINES if name not in working]
    if not lacking:
        pytest.skip("every engine works here")
    assert f"{lacking[0]} does not work here" in sample.run(f"set uffd engine {lacking[0]}")
    assert '"auto"' in sample.run("show uffd engine")
    assert sample.call("push(7)")["engine"] == "wp-sync"
    assert "Undefined item" in sample.run("set uffd engine fastest")


def test_the_doctor_tells_what_is_chosen(gdb):
    text = gdb.run("uffd doctor", timeout=60)
    assert "engine for calls: wp-sync" in text, text
    gdb.run("set uffd engine compare")
    assert "engine for calls: compare: as set" in gdb.run("uffd doctor", timeout=60)
    assert "as set" in doctor("--engine", "compare")["engine for calls"]["found"]


def test_a_core_opens_where_the_engine_that_is_set_does_not_work(gdb, all_cores, working):
    lacking = [name for name in ENGINES if name not in working]
    if not lacking:
        pytest.skip("all of them work here")
    gdb.run(f"set uffd engine {lacking[0]}")
    text = gdb.run(f"uffd spawn {all_cores.sample()}")
    assert f"warning: the engine {lacking[0]} does not work here" in text and "lookup" in text
    assert gdb.value("push(7)") == "1042"


def test_info_tells_what_will_be_used(sample):
    sample.run("set uffd engine compare")
    sample.run("print push(7)")
    assert "engine       compare" in sample.run("uffd info")
    assert "keeps the engine compare" in sample.run("set uffd engine wp-async")
    sample.run("uffd reset")
    assert "wp-async, chosen when something runs" in sample.run("uffd info")
