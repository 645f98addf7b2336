"""The C part's plan: a layer is a folder and calls only those before it, nothing goes in a circle,
and a file's name is the prefix of its functions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Set

import pytest
from harness import ROOT

NATIVE = ROOT / "gdb_uffd" / "native"
LAYERS = ("kernel", "table", "pager", "process", "syscalls", "effects", "recording")
"""Each may call, and include, only those before it."""
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_PUBLIC = re.compile(r"^(?!static|extern|typedef)[a-z_][\w \*]*?[ *](\w+)\([^;{]*\)\n\{", re.M)
_STATIC = re.compile(r"^static [^;{=]*?\b(\w+)\([^;{]*\)\n\{", re.M)


def breaches(folder: Path) -> List[str]:
    """What breaks the plan in the C files of `folder`, a line each."""
    texts = {path: _COMMENT.sub("", path.read_text()) for path in sorted(folder.glob("*/*.[ch]"))}
    sources = [path for path in texts if path.suffix == ".c"]
    places: Dict[str, Path] = {}
    found = []
    for path in sources:
        for name in _PUBLIC.findall(texts[path]):
            places.setdefault(name, path)
            if not _bears(name, path.stem):
                found.append(f"{path.name}: {name} bears another prefix")
    calls = {path: _called(texts[path], places) - {path} for path in sources}
    for path, text in texts.items():
        layer = LAYERS.index(path.parent.name)
        for header in re.findall(r'#include "(\w+)/', text):
            if LAYERS.index(header) > layer:
                found.append(f"{path.parent.name}/{path.name} includes {header}")
        for other in calls.get(path, ()):
            if LAYERS.index(other.parent.name) > layer:
                found.append(f"{path.parent.name}/{path.name} calls {other.parent.name}")
    return found + [
        f"{path.name} calls itself in a circle" for path in sources if _circles(path, calls)
    ]


def _bears(name: str, stem: str) -> bool:
    """With an s or without; the processors' files share one interface, arch.h."""
    prefix = "arch" if stem.startswith("arch_") else stem
    return name == prefix or name.startswith((f"{prefix}_", f"{prefix.rstrip('s')}_"))


def _called(text: str, places: Dict[str, Path]) -> Set[Path]:
    names = set(re.findall(r"\b(\w+)\b", text)) - set(_STATIC.findall(text))
    return {places[name] for name in names & places.keys()}


def _circles(path: Path, calls: Dict[Path, Set[Path]]) -> bool:
    seen: Set[Path] = set()
    todo = list(calls[path])
    while todo:
        other = todo.pop()
        if other not in seen:
            seen.add(other)
            todo += calls[other]
    return path in seen


def test_the_layers_hold() -> None:
    assert {path.name for path in NATIVE.glob("*/")} - {"__pycache__"} == set(LAYERS)
    assert not breaches(NATIVE)


BROKEN = {
    "table/pages.c calls pager": "int pages_x(void)\n{\n\treturn feed_x();\n}\n",
    "table/pages.c includes pager": '#include "pager/feed.h"\n',
    "pages.c: feed_y bears another prefix": "int feed_y(void)\n{\n\treturn 0;\n}\n",
    "ranges.c calls itself in a circle": "int pages_x(void)\n{\n\treturn ranges_x();\n}\n",
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_breach_is_told(tmp_path: Path, said: str) -> None:
    for name, text in {
        "table/pages.c": BROKEN[said],
        "table/ranges.c": "int ranges_x(void)\n{\n\treturn pages_x();\n}\n",
        "pager/feed.c": "/* page_x() */\nint feed_x(void)\n{\n\treturn 0;\n}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert said in breaches(tmp_path)
