"""The machine interface: the same content as -json, as tuples and lists; the notification."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, Set, Tuple

import pytest
from harness import gdbs, survivors
from harness.machine import Machine

pytestmark = [pytest.mark.every_gdb, pytest.mark.shared_gdb]

HAS_NOTIFY = (14, 1)
"""gdb.notify_mi came with gdb 14 (its NEWS)."""


Machines = Dict[str, Tuple[Machine, Set[int]]]


def opened_machine(gdb_path: str, home: Path, core: Path) -> Machine:
    gdbs.environment(home)
    started = Machine(gdb_path, home)
    assert started.answer(f'-interpreter-exec console "uffd spawn {core}"').kind == "done"
    return started


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Those that wait for another test, by gdb, each with its processes."""
    waiting: Machines = {}
    yield waiting
    for machine, pids in waiting.values():
        survivors.parked.difference_update(pids)
        machine.close()


@pytest.fixture
def machine(
    request: pytest.FixtureRequest,
    gdb_path: str,
    tmp_path: Path,
    all_cores: Any,
    machines: Machines,
) -> Iterator[Machine]:
    """One that others had, with what they did undone; a fresh one where the test is `own_gdb`."""
    own = request.node.get_closest_marker("own_gdb")
    if own:
        fresh = opened_machine(gdb_path, tmp_path / "home", all_cores.writes())
        yield fresh
        fresh.close()
        return
    if gdb_path in machines:
        shared, pids = machines.pop(gdb_path)
        survivors.parked.difference_update(pids)
    else:
        before = set(survivors.ours())
        shared = opened_machine(gdb_path, tmp_path / "home", all_cores.writes())
        pids = {shared.pid, *survivors.ours()} - before
    yield shared
    assert shared.answer('-interpreter-exec console "uffd reset"').kind == "done"
    machines[gdb_path] = shared, pids
    survivors.parked.update(pids)


def as_mi(data: Any) -> Any:
    """JSON as the interface should show it."""
    if isinstance(data, dict):
        return {key: as_mi(value) for key, value in data.items() if value is not None}
    if isinstance(data, list):
        return [as_mi(item) for item in data if item is not None]
    return {True: "true", False: "false"}[data] if isinstance(data, bool) else str(data)


VARYING = ("wall_ms", "fault_us", "fed_pages", "recorded_pages")


def without(data: Any) -> Any:
    return {key: value for key, value in data.items() if key not in VARYING}


def test_call(machine, writes):
    done = machine.answer('-uffd-call "count(3)"')
    assert done.kind == "done", done
    assert done.results["value"] == "47" and done.results["kept"] == "false"
    assert done.results["expression"] == "count(3)"
    assert without(done.results) == without(as_mi(writes.call("count(3)")))
    assert machine.answer("-data-evaluate-expression counter").results == {"value": "41"}
    again = machine.answer("-uffd-call count ( 3 )")  # words are joined
    assert again.results["value"] == "47"


def test_keep_and_dirty(machine, writes):
    done = machine.answer('-uffd-call -keep "count(2)"')
    assert done.results["kept"] == "true"
    assert machine.answer("-data-evaluate-expression counter").results == {"value": "44"}
    writes.run("uffd call -keep count(2)")
    for option, command in (("", "uffd dirty -json"), (" -all", "uffd dirty -json -all")):
        dirty = machine.answer("-uffd-dirty" + option)
        assert dirty.kind == "done"
        assert without(dirty.results) == without(as_mi(writes.json(command)))


def test_output(machine):
    done = machine.answer('-uffd-call "say(\\"a text\\")"')
    assert done.results["output"] == "a text\n" and done.results["value"] == "42"


def test_a_crash_is_a_result(machine):
    done = machine.answer('-uffd-call "faults()"')
    assert done.kind == "done" and "did not return: SIGSEGV" in done.results["error"]
    assert "value" not in done.results and done.results["stopped"]["reason"] == "SIGSEGV"
    assert machine.answer("-data-evaluate-expression counter").results == {"value": "41"}


@pytest.mark.parametrize(
    "command, words",
    [
        ("-uffd-call", "usage: -uffd-call"),
        ("-uffd-call -nosuch f()", "is no option"),
        ("-uffd-dirty now", "unexpected"),
        ("-uffd-dirty -nosuch", "is no option"),
    ],
)
def test_errors(machine, command, words):
    failed = machine.answer(command)
    assert failed.kind == "error" and words in failed.results["msg"], failed
    assert "\n" not in failed.results["msg"] and "Traceback" not in failed.console


def test_without_a_core(gdb_path, tmp_path):
    home = tmp_path / "home"
    gdbs.environment(home)
    machine = Machine(gdb_path, home)
    try:
        failed = machine.answer("-uffd-dirty")
        assert failed.kind == "error" and "no core is spawned" in failed.results["msg"]
    finally:
        machine.close()


@pytest.mark.parametrize(
    "expression, words",
    [("nosuch(1)", 'No symbol "nosuch"'), ('"1 +"', "syntax error"), ("*(int *)8", "0x8")],
)
def test_an_expression_that_fails(machine, expression, words):
    failed = machine.answer(f"-uffd-call {expression}")
    assert failed.kind == "error" and words in failed.results["msg"], failed
    assert machine.answer('-uffd-call "count(1)"').results["value"] == "42"


@pytest.mark.own_gdb
def test_nothing_has_run(machine):
    done = machine.answer("-uffd-dirty")
    assert done.kind == "done" and done.results["dirty"] == []


def test_notification(machine, gdb_path):
    if gdbs.version(gdb_path) < HAS_NOTIFY:
        # Without it there is no such record, and no error either.
        done = machine.answer('-uffd-call "count(1)"')
        assert not [n for n in done.notices if n[0] == "uffd-call"]
        pytest.skip("this gdb has no notify_mi")
    done = machine.answer('-uffd-call "count(3)"')
    (notice,) = [results for name, results in done.notices if name == "uffd-call"]
    assert notice["expression"] == "count(3)" and notice["value"] == "47"
    assert notice["kept"] == "false" and int(notice["pages"]) == len(done.results["dirty"])
    done = machine.answer('-interpreter-exec console "uffd call count(2)"')
    (notice,) = [results for name, results in done.notices if name == "uffd-call"]
    assert notice["expression"] == "count(2)" and notice["value"] == "44"
    # A front end's own evaluation has no command of ours.
    machine.answer('-data-evaluate-expression "count(1)"')
    notice = machine.notice("uffd-call")
    assert notice["kept"] == "true" and int(notice["pages"]) > 0
    done = machine.answer("-data-evaluate-expression counter")
    assert done.results == {"value": "42"}
    assert not [n for n in done.notices if n[0] == "uffd-call"]
    done = machine.answer("-uffd-dirty")
    assert done.results["kept"] == "true"
    assert len(done.results["dirty"]) == int(notice["pages"])


@pytest.mark.own_gdb
def test_an_uncaught_exception(machine, gdb_path, all_cores):
    machine.answer('-interpreter-exec console "uffd kill"')
    core = all_cores.throws("throws")
    assert machine.answer(f'-interpreter-exec console "uffd spawn {core}"').kind == "done"
    told = {"type": "std::out_of_range", "what": "no such price"}
    done = machine.answer('-uffd-call "out_of_range()"')
    assert done.results["uncaught"] == told
    if gdbs.version(gdb_path) >= HAS_NOTIFY:
        (notice,) = [results for name, results in done.notices if name == "uffd-call"]
        assert notice["uncaught"] == told
        # The front end's own evaluation fails in gdb's words; the notification tells.
        assert machine.answer('-data-evaluate-expression "out_of_range()"').kind == "error"
        assert machine.notice("uffd-call")["uncaught"] == told
    assert machine.answer("-uffd-dirty").results["uncaught"] == told


def test_why_and_trace_through_the_console(machine):
    machine.answer('-uffd-call "count(2)"')
    text = machine.answer('-interpreter-exec console "uffd why counter"').console
    assert "42 → 44" in text
    text = machine.answer('-interpreter-exec console "uffd trace count(1)"').console
    assert "pages touched" in text
