"""Expressions of the source language, as text that gdb reads back.  No gdb here."""

from __future__ import annotations

import re
from typing import Dict, List

from gdb_uffd.dataclass import dataclass

_UNARY = re.compile(r"[*&!~+\-(]|\(")
"""How text begins that binds weaker than `.`, `->` and `[]` (C11 6.5.2, 6.5.3)."""


@dataclass(frozen=True)
class Expression:
    """An object: `text` names it, or (`pointer`) is a pointer to it.

    `closed`: `text` can be followed by `.`, `->` or `[`.
    """

    text: str
    pointer: bool = False
    closed: bool = True

    def _base(self) -> str:
        return self.text if self.closed else f"({self.text})"

    def member(self, name: str) -> Expression:
        """Its member `name`."""
        return Expression(f"{self._base()}{'->' if self.pointer else '.'}{name}")

    def element(self, index: int) -> Expression:
        """Its element, when it is an array."""
        if self.pointer:
            return Expression(f"(*{self.text})[{index}]")
        return Expression(f"{self._base()}[{index}]")

    def object(self) -> Expression:
        """Itself, named."""
        return Expression(f"*{self._base()}", closed=False) if self.pointer else self

    def target(self) -> Expression:
        """What it points to, when it is a pointer."""
        own = self.object()
        return Expression(own.text, True, own.closed)

    def neighbour(self, index: int) -> Expression:
        """The object `index` places behind it in the same block."""
        if not index or not self.pointer:
            return self
        return Expression(f"{self._base()}[{index}]")


def variable(name: str) -> Expression:
    """A variable by its name, or any other text that may need brackets before a `.`."""
    closed = not _UNARY.match(name) or name.startswith("(anonymous ") or _is_bracketed(name)
    return Expression(name, closed=closed)


def _is_bracketed(text: str) -> bool:
    """Whether the bracket that `text` begins with is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth <= 0:
            return depth == 0 and 0 < index == len(text) - 1
    return False


def at_address(type_name: str, address: int) -> Expression:
    """The object of that type at an address."""
    star = "*" if type_name.endswith("*") else " *"
    return Expression(f"({type_name}{star}) {address:#x}", True, False)


def arguments(expression: str) -> List[str]:
    """The arguments of the outermost call in an expression; [] where it is none.

    "f(a, g(b, c))" gives "a" and "g(b, c)".  Quotes are skipped whole.
    """
    text = expression.strip()
    opened: List[int] = []  # where brackets that are still open stand
    commas: Dict[int, List[int]] = {}  # by their bracket
    last, quote = -1, ""
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[index - 1] != "\\" else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            opened.append(index)
        elif char in ")]}":
            last = opened.pop() if opened else -1
        elif char == "," and opened:
            commas.setdefault(opened[-1], []).append(index)
    called = re.search(r"[\w\]>)]\s*$", text[: max(last, 0)])
    if not text.endswith(")") or quote or opened or last < 1 or not called:
        return []
    ends = [*commas.get(last, []), len(text) - 1]
    starts = [last + 1, *(end + 1 for end in ends[:-1])]
    found = [text[start:end].strip() for start, end in zip(starts, ends)]
    return found if len(found) > 1 or found[0] else []
