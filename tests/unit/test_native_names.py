"""Every name of the native module that Python uses is there: mypy knows none of them."""

from __future__ import annotations

import ast

from harness import ROOT

from gdb_uffd.native import lib


def test_what_is_asked_of_the_native_module_exists():
    lacking = []
    for path in sorted((ROOT / "gdb_uffd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            asked = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lib"
            if asked and not hasattr(lib, node.attr):
                lacking.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.attr}")
    assert not lacking
