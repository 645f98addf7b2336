"""Where a source can be changed, one small thing at a time, and what to."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Tuple


@dataclass(frozen=True)
class Place:
    """In `path` (of the checkout), [start, end) of the text becomes `new`."""

    path: str
    line: int
    start: int
    end: int
    new: str
    what: str

    def changed(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


# -- Python -----------------------------------------------------------------------------------

COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.BitAnd: "|",
    ast.BitOr: "&", ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip


class _Python:
    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        # ast counts UTF-8 bytes in a line.
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.AST) -> Tuple[int, int]:
        end = self.at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        return self.at(node.lineno, node.col_offset), end  # type: ignore[attr-defined]

    def place(self, node: ast.AST, new: str, what: str) -> Place:
        return Place(self.path, node.lineno, *self.span(node), new, what)  # type: ignore[attr-defined]

    def source(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def between(self, left: ast.expr, right: ast.expr, new: str) -> Place:
        """The operator between two expressions becomes another."""
        start, end = self.span(left)[1], self.span(right)[0]
        old = self.text[start:end]
        put = re.sub(r"[^\s()\\]+(\s+(not|in)\b)?", new, old, count=1)
        return Place(self.path, left.lineno, start, end, put, f"{old.strip(' ()')} → {new}")

    def of(self, node: ast.AST) -> Iterator[Place]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield self.between(node.left, node.comparators[0], COMPARED[type(node.ops[0])])
        elif isinstance(node, ast.BoolOp):
            new = "or" if isinstance(node.op, ast.And) else "and"
            yield self.between(node.values[0], node.values[1], new)
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            yield self.between(node.left, node.right, ARITHMETIC[type(node.op)])
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            yield self.place(node.test, f"not ({self.source(node.test)})", "condition negated")
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield self.place(node, str(node.value + 1), f"{node.value} → {node.value + 1}")
        elif isinstance(node, ast.Raise):
            yield self.place(node, "pass", f"not raised: {self.source(node)[:50]}")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield self.place(node, "pass", f"not called: {self.source(node)[:50]}")
        elif isinstance(node, ast.Call) and self.source(node.func) in ("min", "max"):
            one = self.source(node.args[0])
            yield self.place(node, f"({one})", f"no bound: {self.source(node)[:50]}")


def of_python(path: str, text: str) -> List[Place]:
    """Comparisons, arithmetic, conditions, numbers, calls, raises, bounds; no type or docstring."""
    tree, made = ast.parse(text), _Python(path, text)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    skipped |= {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.If)) and _is_no_code(node)
        for inner in ast.walk(node)
    }
    return [p for node in ast.walk(tree) if id(node) not in skipped for p in made.of(node)]


def _is_no_code(node: ast.AST) -> bool:
    """An f-string, whose columns Python 3.11 and before do not tell; `if TYPE_CHECKING`."""
    return isinstance(node, ast.JoinedStr) or "TYPE_CHECKING" in ast.dump(node.test)  # type: ignore[attr-defined]


# -- C ----------------------------------------------------------------------------------------

_NO_CODE = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|[^\n])*',
    re.S | re.M,
)
_C: List[Tuple[str, str]] = [
    (r"(?<= )<(?= )", "<="), (r"(?<= )<=(?= )", "<"), (r"(?<= )>(?= )", ">="),
    (r"(?<= )>=(?= )", ">"), (r"==", "!="), (r"!=", "=="), (r"&&", "||"), (r"\|\|", "&&"),
    (r"(?<= )\+(?= )", "-"), (r"(?<=[\w)] )-(?= )", "+"), (r"(?<= )<<(?= )", ">>"),
    (r"(?<= )>>(?= )", "<<"), (r"!(?=[a-z(])", ""), (r"(?<=return )-E[A-Z0-9]+(?=;)", "0"),
    (r"(?<=^\t)[a-z]\w+\([^;{}]*\);(?=$)", ";"), (r"(?<=^\t\t)[a-z]\w+\([^;{}]*\);(?=$)", ";"),
    (r"\b[1-9]\d{0,3}(?=[;,)\]])", "0"),
]  # fmt: skip


def of_c(path: str, text: str) -> List[Place]:
    """The same, found by the way it is written: what lies in functions, outside comments."""
    code = _NO_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    bodies = [(m.start(), m.end()) for m in re.finditer(r"^\{.*?^\}", code, re.S | re.M)]
    found = []
    for pattern, new in _C:
        for m in re.finditer(pattern, code, re.M):
            if any(start < m.start() < end for start, end in bodies):
                line = code.count("\n", 0, m.start()) + 1
                old = text[m.start() : m.end()]
                what = f"{old[:50]} → {new or 'nothing'}"
                found.append(Place(path, line, m.start(), m.end(), new, what))
    return found


def sources(root: Path) -> List[Path]:
    """The package's, in Python and C, without what is generated."""
    found = [p for p in (root / "gdb_uffd").rglob("*") if p.suffix in (".py", ".c")]
    return sorted(path for path in found if path.name != "_native.c")


def of_source(path: Path, root: Path) -> List[Place]:
    """The places of one, sorted."""
    of = of_python if path.suffix == ".py" else of_c
    found = of(str(path.relative_to(root)), path.read_text(encoding="utf-8"))
    return sorted(found, key=lambda p: (p.start, p.end, p.new))


def of_checkout(root: Path, only: str = "") -> List[Place]:
    """All places of the package, or of what begins with `only`."""
    chosen = [p for p in sources(root) if str(p.relative_to(root)).startswith(only)]
    return [place for path in chosen for place in of_source(path, root)]
