"""Holds the borders of the architecture: who may import what, and how long a module may be."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator, Set

import pytest
from harness import ROOT

PACKAGE = ROOT / "gdb_uffd"
MODULES = sorted(PACKAGE.rglob("*.py"))
STANDARD_ONLY = [p for p in MODULES if p.relative_to(PACKAGE).parts[0] not in ("native",)]


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` names in an import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def gdb_side(path: Path) -> bool:
    relative = path.relative_to(PACKAGE)
    first = relative.parts[0]
    return first in ("client", "gdbinit.py") or first.startswith("commands")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_gdb_side_imports_gdb(path):
    relative = path.relative_to(PACKAGE)
    allowed = gdb_side(path) and relative.parts[:2] != ("client", "show")
    used = {m.split(".")[0] for m in imports(path)}
    assert allowed or "gdb" not in used


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_server_imports_native(path):
    relative = path.relative_to(PACKAGE)
    native = any(m.startswith("gdb_uffd.native") for m in imports(path))
    assert not native or relative.parts[0] in ("native", "recorder", "replay", "server")


@pytest.mark.parametrize("path", [p for p in MODULES if gdb_side(p)], ids=name)
def test_the_gdb_side_needs_nothing_of_the_server(path):
    theirs = tuple(f"gdb_uffd.{name}" for name in ("recorder", "replay", "server", "trace"))
    for module in imports(path):
        assert not module.startswith(theirs) or module.startswith("gdb_uffd.recorder.wire")


def test_what_both_sides_of_the_recorder_say_needs_neither():
    modules = {m.split(".")[0] for m in imports(PACKAGE / "recorder" / "wire.py")}
    assert not modules & {"gdb", "gdb_uffd"}


@pytest.mark.parametrize("path", STANDARD_ONLY, ids=name)
def test_standard_library_only(path):
    third: Set[str] = {"cffi", "elftools", "pexpect", "hypothesis", "numpy", "psutil"}
    assert not third & {m.split(".")[0] for m in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_bare_except(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None)


def test_the_protocol_and_the_architectures_import_neither():
    for folder, ours in (("arch", ["arch"]), ("protocol", ["arch", "protocol"])):
        theirs = tuple(f"gdb_uffd.{name}" for name in ours)
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for module in imports(path):
                own = module.startswith(theirs)
                assert own or module.split(".")[0] in sys.stdlib_module_names, (path, module)
    assert {m.split(".")[0] for m in imports(PACKAGE / "terminal.py")} <= {
        "__future__", "codecs", "re"
    }  # fmt: skip
