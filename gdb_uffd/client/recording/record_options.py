"""What `record at` and `record every` take, in gdb and in a shell.  No gdb here."""

from __future__ import annotations

import re
from typing import Tuple

from gdb_uffd.protocol.model import UffdError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
SHORTEST_S = 1e-3
"""A shorter interval could not be kept, and gdb would do nothing else."""

HOW = (
    "`uffd record snapshot` takes one, `uffd record at` and `uffd record every` while the program "
    "runs"
)
"""What takes snapshots."""

_WORD = re.compile(r"\s+(every|max)\s+(\S+)\s*$")
_IF = re.compile(r"\s+if\b\s*")


def parse_at(words: str, usage: str) -> Tuple[str, str, int, int]:
    """LOCATION [if COND] [every N] [max M] as (location, condition, N, M); M 0: no limit."""
    rest, numbers = " " + words.strip(), {}
    while (match := _WORD.search(rest)) is not None and match[1] not in numbers:
        if not match[2].isdecimal() or not 0 < int(match[2]) < 1 << 31:
            raise UffdError(
                f"`{match[1]}` takes a number from 1 on, not {match[2]}; usage: {usage}"
            )
        numbers[match[1]] = int(match[2])
        rest = rest[: match.start()]
    location, *condition = _IF.split(rest, 1)
    if not location.strip() or condition == [""]:
        raise UffdError(f"usage: {usage}")
    where = location.strip(), condition[0].strip() if condition else ""
    return (*where, numbers.get("every", 1), numbers.get("max", 0))


def parse_interval(words: str, usage: str) -> float:
    """ "10ms" in seconds; UffdError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*", words)
    if match is None:
        raise UffdError(f"an interval is a number and us, ms or s; usage: {usage}")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not SHORTEST_S <= seconds <= 86400:
        raise UffdError("an interval lies between 1ms and 86400s")
    return seconds
