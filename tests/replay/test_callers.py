"""The return addresses that a report takes from the stack as it was at a first write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Iterator

import pytest
from harness.calls import Caller

from gdb_uffd.native import ffi, lib
from gdb_uffd.replay.report import Builder, find_callers

PAGE = 4096


@pytest.fixture
def caller(all_cores) -> Iterator[Caller]:
    made = Caller(all_cores.sample())
    yield made
    made.close()


def test_what_an_earlier_call_left_on_an_unwritten_page_is_no_caller(caller):
    caller.call("push", 7)
    written = [p.first_write for p in caller.reports[-1].pages if p.kind == "heap"]
    inner = written[0].callers[0]
    stack = ffi.new("uint64_t[]", lib.STACK_WORDS)
    stack[3] = stack[20] = inner
    machine = caller.diversion.machine
    assert find_callers(machine, stack) == (inner, inner)
    top = 0x7FFF00002000
    below = SimpleNamespace(page=top - PAGE, first=SimpleNamespace(sp=top - 10 * 8))
    assert find_callers(machine, stack, Builder._unwritten(below)) == (inner,)
    far = SimpleNamespace(page=top - PAGE, first=SimpleNamespace(sp=top - 200 * 8))
    assert find_callers(machine, stack, Builder._unwritten(far)) == ()
    heap = SimpleNamespace(page=0x5000, first=SimpleNamespace(sp=top - 10 * 8))
    assert Builder._unwritten(heap) == 0
