"""Memory that was never touched: read in batches, without memory, and seen when it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness.calls import Caller
from harness.cores import core_of
from harness.telling import message, refused

PAGE = 4096
PAGES = (1 << 28) // PAGE


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return core_of("sparse", tmp_path_factory.mktemp("sparse"))


@pytest.fixture
def caller(core):
    made = Caller(core)
    yield made
    made.close()


def resident(caller: Caller) -> int:
    """KiB of real memory that the process takes."""
    pid = caller.diversion.info()["vessel_pid"]
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1])


@pytest.mark.parametrize("function", ["sum", "sum_down"])
def test_it_is_read_in_batches_and_takes_no_memory(caller, function):
    assert caller.call(function) == 4
    report = caller.reports[-1]
    assert PAGES <= report.fed_pages < PAGES + 100
    assert resident(caller) < 1024
    assert int(caller.diversion.vessel.counts().faults) < PAGES // 100
    (remark,) = [remark for remark in report.remarks if remark.kind == "ahead"]
    assert remark.count > PAGES * 9 // 10
    assert not [page for page in report.pages if page.kind != "stack"]
    assert caller.call(function) == 4
    assert "ahead" not in [remark.kind for remark in caller.reports[-1].remarks]


def test_every_write_is_seen_and_undone(caller):
    big = int.from_bytes(caller.diversion.read_memory(caller.symbol("big"), 8), "little")
    for keep in (False, False, True):
        assert caller.call("write_some", 100, keep=keep) == 104
        written = {page.start for page in caller.reports[-1].pages if page.kind == "anonymous"}
        assert written == {big + i * 3 * PAGE for i in range(1, 101)}
        first = {
            page.first_write.pc for page in caller.reports[-1].pages if page.kind == "anonymous"
        }
        assert len(first) == 1 and 0 not in first
        if not keep:
            assert caller.diversion.read_memory(big + 3 * PAGE, PAGE) == bytes(PAGE)
    assert caller.diversion.read_memory(big + 3 * PAGE + 8, 1) == b"\1"
    assert caller.call("sum") == 4
    caller.diversion.write_memory(big + 7 * PAGE, b"gdb's")
    assert caller.diversion.read_memory(big + 7 * PAGE, 5) == b"gdb's"
    caller.diversion.commit_pending()


def test_what_is_written_there_counts_for_the_limit(caller):
    caller.diversion.policy = replace(caller.diversion.policy, memory_limit=8 << 20)
    assert caller.call("sum") == 4
    caller.more["rsi"] = 4
    assert caller.call("fill", 1) == 4
    caller.more["rsi"] = 64
    stop = caller.start("fill", 1)
    caller.diversion.call_end()
    report = caller.diversion.end(False)
    assert "needs more than 8 MiB" in message(stop) and not refused(report)


def test_other_engines_read_the_same(core):
    for engine in ("wp-async", "compare"):
        caller = Caller(core)
        try:
            caller.diversion.set_engine(engine)
            assert caller.call("write_some", 10) == 14
            assert len([p for p in caller.reports[-1].pages if p.kind == "anonymous"]) == 10
        finally:
            caller.close()
