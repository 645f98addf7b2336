"""A few of other projects' cores, where `make peers` fetched them: as stock gdb shows them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).resolve().parent.parent / "peers"
SPEC = importlib.util.spec_from_file_location("peers_compare", PEERS / "compare.py")
assert SPEC is not None and SPEC.loader is not None
compare = importlib.util.module_from_spec(SPEC)
sys.modules["peers_compare"] = compare
SPEC.loader.exec_module(compare)

CORES = {
    "elfutils/test-core.core": "same",
    "elfutils/backtrace.aarch64.core": "same",
    "elfutils/backtrace.s390x.core": "refused",
    "lldb/thread_crash/linux-x86_64.core": "same",
    "pyelftools/core_linux64.elf": "same",
}


@pytest.mark.parametrize("name", CORES)
def test_a_peers_core_is_shown_as_stock_gdb_shows_it(name):
    core = compare.CACHE / name
    if not core.exists() or not compare.GDB.exists():
        pytest.skip("run `make peers` once to fetch other projects' cores")
    outcome = compare.compare_core(core, compare.read_known())
    assert outcome.verdict == CORES[name], "\n".join(outcome.notes)
    if outcome.verdict == "refused":
        (line,) = outcome.notes
        assert "a core of S/390" in line
