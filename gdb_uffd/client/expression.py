"""Expressions of the source language, as text that gdb reads back.  No gdb here."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
    return Expression(name, closed=not _UNARY.match(name) or name.startswith("(anonymous "))


def at_address(type_name: str, address: int) -> Expression:
    """The object of that type at an address."""
    star = "*" if type_name.endswith("*") else " *"
    return Expression(f"({type_name}{star}) {address:#x}", True, False)
