"""What a message is made of, and what the types of its fields say beside Python's: see codec.py."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from gdb_uffd.dataclass import dataclass

__all__ = (
    "LEFT_OUT", "Absolute", "AbsolutePath", "Address", "AtMost", "Hex", "Within", "called",
)  # fmt: skip


@dataclass(frozen=True)
class Hex:
    """A number that is sent as a hex string, of 64 bits at most."""


@dataclass(frozen=True)
class Within:
    """A whole number from `low` to `high`, both inclusive."""

    low: int
    high: int


@dataclass(frozen=True)
class AtMost:
    """A list of no more than `count`."""

    count: int


@dataclass(frozen=True)
class Absolute:
    """A path from "/" on: the current directory of one side is not the other's."""


Address = Annotated[int, Hex()]
"""A number that is shown, and sent, in hex."""

AbsolutePath = Annotated[str, Absolute()]


LEFT_OUT = {"left_out": True}
"""The metadata of a field that is not sent where it has its default."""


def called(name: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is sent by another name."""
    return dataclasses.field(default=default, metadata={"name": name})
