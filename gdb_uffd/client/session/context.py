"""What a report is about, for those who name what it changed.  No gdb here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """The call: its expression, and its value's number in the history (0: there is none)."""

    expression: str = ""
    number: int = 0
