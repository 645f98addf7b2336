"""Heaps that are not as usual: found all the same, or said to be unreadable, with where."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import programs
from harness.calls import Caller
from harness.cores import NoKernelCore, kernel_core

from gdb_uffd.protocol.model import CallReport


@pytest.fixture(scope="module")
def core(tmp_path_factory: Any) -> Callable[[str], Path]:
    built = programs.build()

    def make(how: str) -> Path:
        try:
            return kernel_core([str(built / "heirs"), how], tmp_path_factory.mktemp(how))
        except NoKernelCore as why:
            pytest.skip(str(why))

    return make


def told(caller: Caller, name: str, argument: int) -> CallReport:
    caller.call(name, argument)
    report = caller.reports[-1]
    caller.diversion.refine(report)
    return report


@pytest.mark.parametrize("how", ["plain", "fork", "arena"])
def test_what_is_freed_and_allocated(core: Callable[[str], Path], how: str) -> None:
    with closing(Caller(core(how))) as caller:
        if how != "plain":
            heaps = [
                m
                for m in caller.snapshot.mappings
                if caller.snapshot.classify(m.start).kind == "heap"
            ]
            assert any(a.end == b.start for a, b in zip(heaps, heaps[1:])), heaps
        report = told(caller, "drop", 5)
        assert report.heap is not None, report.heap_trouble
        # The thread's cache takes them, which hardly tells in their headers.
        assert (report.heap.freed, report.heap.freed_bytes) == (5, 5 * 24)
        roles = {run.role for page in report.pages if page.kind == "heap" for run in page.ranges}
        assert roles == {"malloc"}, roles
        for count in (1, 30, 400):
            report = told(caller, "take", count)
            assert report.heap is not None, report.heap_trouble
            assert (report.heap.allocated, report.heap.freed) == (count, 0)
            assert len(report.blocks) == count or count > 100  # of many not all are listed
        report = told(caller, "give", 50)
        assert report.heap is not None, report.heap_trouble
        assert (report.heap.allocated, report.heap.freed) == (0, 50)


def test_a_torn_header_is_named(core: Callable[[str], Path]) -> None:
    with closing(Caller(core("torn"))) as caller:
        block = int.from_bytes(
            caller.diversion.read_memory(caller.symbol("blocks") + 40, 8), "little"
        )
        report = told(caller, "give", 3)
        assert report.heap is None
        trouble = report.heap_trouble
        assert trouble is not None and trouble.block == block + 1008
        assert trouble.what.startswith("size-") and trouble.value is not None
        assert trouble.before is not None and trouble.before.start == block
        assert trouble.state in ("", "before")


def test_a_torn_list_is_named(core: Callable[[str], Path]) -> None:
    with closing(Caller(core("list"))) as caller:
        report = told(caller, "drop", 1)
        assert report.heap is None and report.heap_trouble is not None
        assert report.heap_trouble.what in ("link-unaligned", "link-unreadable")
