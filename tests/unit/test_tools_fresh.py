"""The parts of `make fresh` that need neither root nor a network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Iterator

import pytest
from harness import ROOT


@pytest.fixture(scope="module")
def fresh() -> Iterator[ModuleType]:
    """tools/fresh/__main__.py as a module."""
    path, modules = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location("fresh", ROOT / "tools/fresh/__main__.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    yield made
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("machine", "packages"):
            del sys.modules[name]


def test_what_the_readme_names_is_installed(fresh: ModuleType) -> None:
    assert fresh.needed() == ["make", "gcc", "libc6-dev", "python3-venv"]


def test_reasons_stand_below_the_table(fresh: ModuleType) -> None:
    table = [
        ["machine", "variant", "user", *fresh.COMMANDS],
        ["a", "minimal", "root", "ok 9 s", "skipped: no gdb: none", "FAILS: 1 failed"],
        ["b", "", "", "skipped: no mirror"],
    ]
    assert fresh.shown(table).splitlines() == [
        "machine  variant  user  make     make demo  unit tests",
        "a        minimal  root  ok 9 s   skipped    FAILS",
        "b                       skipped",
        "a minimal root (make demo) skipped: no gdb: none",
        "a minimal root (unit tests) FAILS: 1 failed",
        "b (make) skipped: no mirror",
    ]


def test_the_last_word_is_not_makes(fresh: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        b"demo: nothing was recorded\n\xff\nno gdb\nmake[1]: *** [x] Error 1\nmake: ***\n\n"
    )
    assert fresh.last_word(log) == "no gdb"


def test_pips_settings_are_passed_on(
    fresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files' settings as one file, its environment as it is, and what both name."""
    index, wheels = tmp_path / "index" / "simple", tmp_path / "wheels"
    index.mkdir(parents=True)
    wheels.mkdir()
    said = f"""global.extra-index-url='file://{index} https://example.invalid/simple'
global.find-links='\\n/nowhere\\n{wheels}'
install.no-warn-script-location='yes'
:env:.find-links='/else'
"""
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr(fresh.machine.subprocess, "run", lambda *a, **k: done)
    monkeypatch.setattr(fresh.machine.os, "environ", {"PIP_INDEX_URL": "x", "PATH": "/bin"})
    assert fresh.machine.environment() == {"PIP_INDEX_URL": "x"}
    assert fresh.machine.named_paths() == [str(tmp_path / "index"), str(index), str(wheels)]
    (tmp_path / "etc").mkdir()
    fresh.machine.write_pip_settings(tmp_path)
    assert (tmp_path / "etc/pip.conf").read_text() == (
        f"[global]\nextra-index-url = file://{index} https://example.invalid/simple\n"
        f"find-links = \n  /nowhere\n  {wheels}\n[install]\nno-warn-script-location = yes\n"
    )
