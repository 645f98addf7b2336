"""A few programs of `make differential` (tests/differential), of fixed seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, gdbs

SEEDS = (7, 8, 34)
"""C, C++, C, of our own generators: csmith may not be here."""


@pytest.fixture
def differential(monkeypatch: Any, tmp_path: Path) -> Any:
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 for the live process: run `make gdb`")
    folder = ROOT / "tests" / "differential"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    spec = importlib.util.spec_from_file_location("differential_run", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CACHE", tmp_path)
    return module


@pytest.mark.parametrize("seed", SEEDS)
def test_alive_and_in_a_core(differential: Any, seed: int) -> None:
    verdict, kind, notes = differential.judge(seed)
    assert verdict == "same", (seed, kind, notes)
