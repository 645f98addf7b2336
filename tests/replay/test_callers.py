"""The callers of a page's first write, of frames of all kinds: which functions they are in."""

from __future__ import annotations

import bisect
import subprocess
from typing import Iterator, List, Tuple

import pytest
from harness import programs
from harness.calls import Caller, Client

from gdb_uffd.native import lib
from gdb_uffd.protocol.model import CallReport, page_floor
from gdb_uffd.replay.interface import Resume

pytestmark = pytest.mark.skipif(not lib.ARCH_UNWINDS, reason="frames are not followed here")

WRITES = {
    "outer": ("target", ["leaf", "middle", "outer"]),
    "changing": ("target", ["leaf", "changing"]),
    "after_deep": ("target", ["roomy", "after_deep"]),
    "indirect": ("target", ["leaf", "callback", "indirect"]),
    "sort_numbers": ("compared", ["by_number", "sort_numbers"]),
    "insert": ("sizes", ["insert"]),
    "print": ("stream", ["print"]),
}
"""What a function writes, and its own chain of calls there, innermost first."""

OWN = {name for _, chain in WRITES.values() for name in chain}
OWN |= {"deep", "main", "handler", "signalled", "sort_words", "through_plt"}


class Session:
    def __init__(self, program: str, caller: Caller) -> None:
        self.program, self.caller = program, caller
        main = caller.snapshot.main
        assert main is not None
        self.bias = main.bias
        listed = subprocess.run(["nm", main.path], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listed.stdout.splitlines()]
        code = [row for row in rows if len(row) == 3 and row[1] in "tTwWiV"]
        self.symbols = sorted((int(row[0], 16) + self.bias, row[2]) for row in code)
        self.low = min(part.start for part in main.ranges)
        self.high = max(part.end for part in main.ranges)

    def function(self, pc: int) -> str:
        if not self.low <= pc < self.high:
            return ""
        return self.symbols[bisect.bisect(self.symbols, (pc, "~")) - 1][1]

    def own(self, report: CallReport, page: int) -> List[str]:
        """The program's own functions at the first write of the page, innermost first."""
        (found,) = [p.first_write for p in report.pages if p.start == page]
        assert found is not None
        pcs = [found.pc, *(address - 1 for address in found.callers)]
        return [name for name in map(self.function, pcs) if name in OWN]


@pytest.fixture(params=programs.UNWINDS)
def session(all_cores, request) -> Iterator[Session]:
    made = Caller(all_cores.unwinds(request.param))
    yield Session(request.param, made)
    made.close()


def test_each_is_in_the_function_that_called(session):
    for function, (what, chain) in WRITES.items():
        session.caller.call(function, 3)
        report = session.caller.reports[-1]
        page = page_floor(session.caller.symbol(what))
        assert session.own(report, page) == chain, function


def test_a_kept_page_that_is_written_again(session):
    page = page_floor(session.caller.symbol("target"))
    for function in ("outer", "changing", "outer"):
        session.caller.call(function, 3, keep=True)
        assert session.own(session.caller.reports[-1], page) == WRITES[function][1]


def test_what_an_earlier_call_left_is_no_caller(session):
    session.caller.call("deep", 30)  # a deeper one was in the recorded program as well
    function = "puts" if session.program != "unwinds-static" else "printf"
    session.caller.call(function, session.caller.symbol("target"))
    writes = [p.first_write for p in session.caller.reports[-1].pages]
    found = {session.function(a - 1) for w in writes if w is not None for a in w.callers}
    assert not found & OWN


def signalled(caller: Caller) -> CallReport:
    stop = caller.start("signalled", 3)
    assert stop.signal == 10
    caller.diversion.resume(Resume(caller.tid, "c", signal=10), Client())
    caller.diversion.call_end()
    return caller.diversion.end(False)


def test_through_the_frame_of_a_signal(session):
    if session.program.startswith("unwinds-untold"):
        pytest.skip("of its handler nothing is told")
    page = page_floor(session.caller.symbol("target"))
    assert session.own(signalled(session.caller), page) == ["leaf", "handler", "signalled"]


def test_the_linker_is_called_by_the_line_that_needs_it(session):
    if session.program == "unwinds-static":
        pytest.skip("it has no linker")
    session.caller.call("through_plt", 3)
    report = session.caller.reports[-1]
    tables: List[Tuple[int, List[str]]] = [
        (page.start, session.own(report, page.start))
        for page in report.pages
        if session.low <= page.start < session.high and page.kind == "data"
    ]
    assert tables and all(chain == ["through_plt"] for _, chain in tables), tables
