"""The arguments of the `quffd` packets: a JSON object each, checked field by field."""

from __future__ import annotations

import re
from typing import Any, Dict

from gdb_uffd.protocol.model import UffdError

Arguments = Dict[str, Any]


def boolean(arguments: Arguments, name: str) -> bool:
    """The field `name`, False when it is left out."""
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise UffdError(f"{name} is not true or false")
    return value


def integer(arguments: Arguments, name: str) -> int:
    """The field `name`, a number that must be there."""
    value = arguments.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UffdError(f"{name} is not a whole number")
    return value


def string(arguments: Arguments, name: str) -> str:
    """The field `name`, a text that must be there."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise UffdError(f"{name} is not a text")
    return value


def address(arguments: Arguments) -> int:
    """The field "address"."""
    value = arguments.get("address")
    if not isinstance(value, str) or not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", value):
        raise UffdError('address is not a hex string such as "0x1000"')
    return int(value, 16)


def path(arguments: Arguments) -> str:
    """The field "path", an absolute one: our current directory is not the user's."""
    value = arguments.get("path")
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise UffdError("path is not an absolute path")
    return value
