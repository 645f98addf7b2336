"""JSON as the machine interface has it.  No gdb here."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from gdb_uffd.protocol.model import UffdError


def value(data: Any) -> Any:
    """`data`, made of JSON's types, for gdb's MI tuples and lists (gdb manual, "GDB/MI Output
    Syntax"): every scalar is a string, null is left out, true is "true"."""
    if isinstance(data, dict):
        return {str(key): value(item) for key, item in data.items() if item is not None}
    if isinstance(data, (list, tuple)):
        return [value(item) for item in data if item is not None]
    if isinstance(data, bool):
        return "true" if data else "false"
    return str(data)


def options(
    arguments: Sequence[str], allowed: Sequence[str], usage: str
) -> Tuple[List[str], List[str]]:
    """Leading `-option` words, without their dash, and the other arguments.  UffdError.

    One dash: `--all` is the interface's own (gdb manual, "Context management").
    """
    found: List[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word[1:] not in allowed:
            raise UffdError(f"{word} is no option; usage: {usage}")
        found.append(word[1:])
    return found, rest
