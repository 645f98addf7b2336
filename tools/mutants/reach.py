"""Which test files may notice a change in a module: those that import it (or name its file, which
they run), the nearest ones first.

A map of imports, no coverage: it says what can be reached, not what is.  What runs inside gdb is
imported by no test, and C by none: their test files are ranked by the words that they share.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Dict, FrozenSet, List, Set, Tuple

FAR = 99


def imported(path: Path) -> Set[str]:
    """The dotted names in a file's imports, those of names in modules too, and of what is run by
    `-m` in a process of its own."""
    found: Set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and repr(node.value).startswith("'gdb_uffd."):
            found.add(f"{node.value!s}.__main__")
    return found


def dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def words(text: str) -> FrozenSet[str]:
    return frozenset(re.findall(r"[a-z]{3,}", text.lower()))


class Reach:
    """Of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = {dotted(p, root): p for p in (root / "gdb_uffd").rglob("*.py")}
        helpers = root / "tests" / "lib"
        files.update({dotted(p, helpers): p for p in helpers.rglob("*.py")})
        self.imports = {name: imported(path) & files.keys() for name, path in files.items()}
        self.tests = sorted((root / "tests").glob("*/test_*.py"))
        self.steps: Dict[Path, Dict[str, int]] = {}
        self.texts = {path: path.read_text(encoding="utf-8") for path in self.tests}
        self.words = {path: words(text) for path, text in self.texts.items()}
        self.rarity = Counter(word for text in self.words.values() for word in text)
        for test in self.tests:
            self.steps[test] = self._steps(imported(test) & files.keys())

    def _steps(self, begin: Set[str]) -> Dict[str, int]:
        """How many imports lie between a test and each module that it reaches."""
        found, fringe, step = {}, set(begin), 1
        while fringe:
            found.update(dict.fromkeys(fringe, step))
            step += 1
            fringe = {i for name in fringe for i in self.imports[name]} - found.keys()
        return found

    def of(self, path: Path, most: int) -> List[Path]:
        """At most `most` test files for a source, in the order in which they are to run."""
        able, through = self._ordered(path)
        own = most - 2 if "gdb" not in self._tops(path) else 0
        # What is at work behind gdb shows there, too, and what is inside it nowhere else.
        chosen = dict.fromkeys([*able[:own], *through])
        return list(chosen)[: len(able[:own]) + 2 if own and able else most]

    def others(self, path: Path, first: List[Path]) -> List[Path]:
        """Every other test file that reaches it."""
        able, through = self._ordered(path)
        return [test for test in dict.fromkeys([*able, *through]) if test not in first]

    def _ordered(self, path: Path) -> Tuple[List[Path], List[Path]]:
        """Those that run its code themselves, and those inside gdb; the nearest first."""
        mine = words(path.stem.replace("_", " ") + " " + path.read_text(encoding="utf-8"))
        name, module = words(path.stem.replace("_", " ")), dotted(path, self.root)

        def rank(test: Path) -> tuple[float, float]:
            shared = sum(1 / self.rarity[word] for word in self.words[test] & mine)
            alike = len(name & words(test.stem.replace("_", " ")))
            # In gdb everything is at work, whatever the test imports.
            imports = path.suffix == ".py" and test.parent.name != "gdb"
            named = 2 if self._names(test, path) else FAR
            near = self.steps[test].get(module, named) if imports else FAR
            return near - 2 * alike, -shared / (len(self.words[test]) ** 0.5 + 1)

        in_c = path.suffix == ".c"
        folders = ("native", "replay") if in_c else ()
        able = [
            test
            for test in self.tests
            if test.parent.name in folders or module in self.steps[test]
            or (not in_c and self._names(test, path))
        ]  # fmt: skip
        able.sort(key=lambda test: (in_c and test.parent.name != "native", rank(test)))
        return able, sorted((t for t in self.tests if t.parent.name == "gdb"), key=rank)

    def _names(self, test: Path, path: Path) -> bool:
        return any(before + path.name in self.texts[test] for before in ('"', "/"))

    @staticmethod
    def _tops(path: Path) -> Set[str]:
        if path.suffix != ".py":
            return set()
        return {name.split(".")[0] for name in imported(path)}
