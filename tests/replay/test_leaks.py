"""What a call, its report and its end leave of the server's own memory: nothing, however often."""

from __future__ import annotations

import ctypes
import gc
import platform
from pathlib import Path

import pytest
from harness.calls import Caller

from gdb_uffd.protocol.model import ENGINES
from gdb_uffd.replay.attribute import heap_report
from gdb_uffd.replay.rerun.play import Rerun
from gdb_uffd.replay.rerun.writes import PlayEnd
from gdb_uffd.replay.trackers import kernel

TURNS = 3
LEAST = 1000
"""Bytes a turn that count: less than a page's image, more than what Python keeps now and then."""


class _Info(ctypes.Structure):
    """struct mallinfo2 of <malloc.h> (glibc 2.33)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        )
    ]


def allocated() -> int:
    """Bytes that this process holds of malloc's."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip(f"mallinfo2 came with glibc 2.33, this is {platform.libc_ver()[1]}")
    libc.mallinfo2.restype = _Info
    info = libc.mallinfo2()
    return int(info.uordblks) + int(info.hblkhd)


def undone(caller: Caller) -> None:
    caller.call("count", 5)


def kept_and_forgotten(caller: Caller) -> None:
    caller.call("spread", 50, keep=True)
    caller.diversion.report_all()
    caller.diversion.image(caller.symbol("large"), True)
    caller.diversion.reset()


def kept_upon_kept(caller: Caller) -> None:
    """What the last one changed of what was kept before is kept, too, for the way back."""
    for _ in range(4):
        caller.call("spread", 50, keep=True)
    caller.diversion.reset()


def mappings(caller: Caller) -> None:
    caller.call("maps", keep=True)
    caller.call("maps")
    caller.diversion.reset()


def with_text(caller: Caller) -> None:
    """As gdb passes a string: the function's call begins, malloc's is inside of that."""
    d = caller.diversion
    d.begin()
    d.call_begin(caller.symbol("bump"), False)
    begin = d.call_begin
    d.call_begin = lambda address, _: begin(address, True)
    try:
        caller.enter("malloc", 5000)
    finally:
        del d.call_begin
    d.call_end()
    d.write_memory(caller.result, b"x" * 5000)
    caller.enter("bump", 1)
    d.call_end()
    d.call_end()
    report = d.end(False)
    d.refine(report)
    assert "malloc" in {who for page in report.pages for who in page.writers}
    for page in report.pages:
        d.image(page.start, False)


def the_heap(caller: Caller) -> None:
    caller.call("push", 3, keep=True)
    heap_report.overview(caller.diversion)
    caller.diversion.refine(caller.reports[-1])
    caller.diversion.reset()


def once_more(caller: Caller) -> None:
    caller.call("spread", 20)
    for name, size in (("counter", 4), ("large", 20000)):
        rerun = Rerun(caller.diversion, caller.symbol(name), size, False, 100)
        try:
            while not isinstance(rerun.next(), PlayEnd):
                pass
        finally:
            rerun.close()


def assigned(caller: Caller) -> None:
    """Before anything ran there, and kept or not."""
    large = caller.symbol("large")
    for _ in range(2):
        caller.diversion.begin()
        caller.diversion.write_memory(large, b"x" * 40000)
        caller.diversion.end(False)
    caller.diversion.write_memory(large, b"x" * 40000)
    caller.call("maps")
    caller.diversion.reset()


def opened_and_closed(caller: Caller) -> None:
    made = Caller(Path(caller.snapshot.path))
    made.diversion.set_engine(caller.diversion.vessel.engine.setting)
    made.call("spread", 20)
    made.diversion.refine(made.reports[-1])
    assert made.diversion.view(False, False).word(made.symbol("large")) == 0
    made.close()


def moved(caller: Caller) -> None:
    for _ in range(2):
        caller.call("move")
        caller.call("move_twice")
    caller.call("move", keep=True)
    caller.diversion.reset()


PROGRAMS = {moved: "moves"}
"""Of turns that are not the usual one's."""


@pytest.mark.parametrize("engine", [name for name in ENGINES if not kernel().failure(name)])
@pytest.mark.parametrize(
    "turn",
    [
        undone, kept_and_forgotten, kept_upon_kept, mappings, with_text, the_heap, once_more,
        assigned, moved, opened_and_closed,
    ],
)  # fmt: skip
def test_nothing_is_left(all_cores, engine, turn):
    caller = Caller(getattr(all_cores, PROGRAMS.get(turn, "writes"))())
    try:
        caller.diversion.set_engine(engine)
        for _ in range(2):
            turn(caller)
        grown = []
        for _ in range(3):  # what lists and tables grow by now and then is no leak
            caller.reports.clear()
            before = allocated()
            for _ in range(TURNS):
                turn(caller)
            caller.reports.clear()
            grown.append((allocated() - before) / TURNS)
        assert min(grown) < LEAST, grown
    finally:
        caller.close()
