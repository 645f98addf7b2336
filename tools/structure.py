#!/usr/bin/env python3
"""What breaks the plan of the house (CONTRIBUTING.md, "Where things are"), a line each.

Exit 1 while anything does.

usage: structure.py [CHECKOUT]
"""

from __future__ import annotations

import ast
import collections
import re
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Set, Tuple

LAYERS = ("kernel", "table", "pager", "process", "syscalls", "effects", "recording")
"""Each may call, and include, only those before it."""
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_PUBLIC = re.compile(r"^(?!static|extern|typedef)[a-z_][\w \*]*?[ *](\w+)\([^;{]*\)\n\{", re.M)
_STATIC = re.compile(r"^static [^;{=]*?\b(\w+)\([^;{]*\)\n\{", re.M)


def native(folder: Path) -> List[str]:
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


Module = Tuple[str, str, ast.Module]  # its path in the package, its text, and that parsed

_WITHOUT_LATE = ("recorder", "replay", "server", "trace")
_OF_STRUCTS = ("replay/vessel.py", "replay/regions.py")
_STRUCT = re.compile(r"\bvessel\.(?:native|pager)$")
_MIRRORS = re.compile(r'"""enum \w+ of native/')
_CUT = re.compile(
    r"""split\(["'];["'], 1\)|partition\(["'];["']\)|\\b(?:held by|for \(0x|the lock at)"""
)


def names(modules: List[Module]) -> Iterator[str]:
    """A class name stands for one thing; private ones are their module's."""
    found: Dict[str, List[str]] = collections.defaultdict(list)
    for path, _, tree in modules:
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    for name, paths in sorted(found.items()):
        if len(paths) > 1:
            yield f"class {name} stands for two things: {', '.join(paths)}"


def late(modules: List[Module]) -> Iterator[str]:
    """Nothing of ours is imported inside a function."""
    for path, _, tree in modules:
        if not path.startswith(_WITHOUT_LATE):
            continue
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gdb_uffd"):
                    yield f"{path}:{node.lineno}: imports {node.module} inside a function"


def structs(modules: List[Module]) -> Iterator[str]:
    """The fields of the native structs of a vessel are named in its own files only."""
    for path, _, tree in modules:
        if not path.startswith(_WITHOUT_LATE) or path in _OF_STRUCTS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _STRUCT.search(ast.unparse(node.value)):
                yield f"{path}:{node.lineno}: names {node.attr} of a native struct"


def mirrors(modules: List[Module]) -> Iterator[str]:
    """Enums of C are cffi's constants, not numbers written down again."""
    for path, text, _ in modules:
        for _found in _MIRRORS.finditer(text):
            yield f"{path}: mirrors an enum of C by hand"


def sentences(modules: List[Module]) -> Iterator[str]:
    """A sentence that the server made is not taken apart by gdb's side."""
    for path, text, _ in modules:
        if path.startswith("client/"):
            for number, line in enumerate(text.split("\n"), 1):
                if _CUT.search(line):
                    yield f"{path}:{number}: takes a sentence apart"


RULES: Tuple[Callable[[List[Module]], Iterator[str]], ...] = (
    names,
    late,
    structs,
    mirrors,
    sentences,
)


def python(package: Path) -> List[str]:
    """What breaks the rules in the Python modules of `package`."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        modules.append((str(path.relative_to(package)), text, ast.parse(text)))
    return [line for rule in RULES for line in rule(modules)]


def main() -> int:
    """All of it."""
    package = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "gdb_uffd"
    found = [*native(package / "native"), *python(package)]
    print("\n".join(found) or "the structure holds")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
