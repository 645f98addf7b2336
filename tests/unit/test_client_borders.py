"""Which modules of gdb's side may import what; read from the source, nothing is imported."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "gdb_uffd"
COMMANDS = [PACKAGE / "commands.py", *sorted((PACKAGE / "client/commands").glob("*.py"))]
GDB_SIDE = [PACKAGE / "commands.py", PACKAGE / "gdbinit.py", *(PACKAGE / "client").rglob("*.py")]
SHOW = PACKAGE / "client" / "show"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield str(node.module)


@pytest.mark.parametrize("path", GDB_SIDE, ids=lambda p: p.name)
def test_imports(path: Path):
    for name in imports(path):
        top = name.split(".")[0]
        if top == "gdb":
            assert SHOW not in path.parents, name
        elif top == "gdb_uffd":
            ours = ("gdb_uffd.client", "gdb_uffd.commands", "gdb_uffd.protocol")
            shared = (
                "gdb_uffd",
                "gdb_uffd.arch",
                "gdb_uffd.outputs",
                "gdb_uffd.terminal",
                "gdb_uffd.recorder.wire",
            )
            assert name in shared or name.startswith(ours), name
        elif sys.version_info >= (3, 10):
            assert top in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", GDB_SIDE, ids=lambda p: p.name)
def test_syntax_of_python_3_9(path: Path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize(
    "path", [*COMMANDS, PACKAGE / "client/session/settings.py"], ids=lambda p: p.name
)
def test_help_texts_are_ascii(path: Path):
    """gdb refuses a command whose help its host charset cannot show (LC_ALL=C)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            assert (ast.get_docstring(node) or "").isascii(), node.name
