"""The plan of the house is held (tools/structure.py), and each rule notices what breaks it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

NATIVE = ROOT / "gdb_uffd" / "native"
_spec = importlib.util.spec_from_file_location("structure", ROOT / "tools" / "structure.py")
assert _spec is not None and _spec.loader is not None
structure: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(structure)


def test_the_plan_is_held() -> None:
    assert {path.name for path in NATIVE.glob("*/")} - {"__pycache__"} == set(structure.LAYERS)
    assert not structure.native(NATIVE)
    assert not structure.python(ROOT / "gdb_uffd")


BROKEN = {
    "table/pages.c calls pager": "int pages_x(void)\n{\n\treturn feed_x();\n}\n",
    "table/pages.c includes pager": '#include "pager/feed.h"\n',
    "pages.c: feed_y bears another prefix": "int feed_y(void)\n{\n\treturn 0;\n}\n",
    "ranges.c calls itself in a circle": "int pages_x(void)\n{\n\treturn ranges_x();\n}\n",
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_breach_in_c_is_told(tmp_path: Path, said: str) -> None:
    for name, text in {
        "table/pages.c": BROKEN[said],
        "table/ranges.c": "int ranges_x(void)\n{\n\treturn pages_x();\n}\n",
        "pager/feed.c": "/* page_x() */\nint feed_x(void)\n{\n\treturn 0;\n}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert said in structure.native(tmp_path)


@pytest.mark.parametrize(
    "path, text, said",
    [
        ("trace/two.py", "class Thing:\n    pass\n", "class Thing stands for two things"),
        ("trace/two.py", "def f():\n    from gdb_uffd.trace import x\n", "trace/two.py:2: imports"),
        (
            "replay/two.py",
            "def f(me):\n    me.vessel.native.pid = 0\n",
            "replay/two.py:2: names pid",
        ),
        ("replay/two.py", 'K = {}\n"""enum k of native/k.h"""\n', "replay/two.py: mirrors"),
        ("client/two.py", 'x = y.split(";", 1)\n', "client/two.py:1: takes a sentence apart"),
    ],
)
def test_a_breach_in_python_is_told(tmp_path: Path, path: str, text: str, said: str) -> None:
    for name, content in (("trace/one.py", "class Thing:\n    pass\n"), (path, text)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (found,) = structure.python(tmp_path)
    assert found.startswith(said)
