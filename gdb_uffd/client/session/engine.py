"""`set uffd engine`, told to a server."""

from __future__ import annotations

from typing import Callable

from gdb_uffd.client.session.printing import say
from gdb_uffd.protocol.messages import ChosenEngine, SetEngine
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

Ask = Callable[[SetEngine], ChosenEngine]
"""A session's `request`."""


def ask(request: Ask, name: str) -> str:
    """Ask a session's server for that engine; a line for the user, or "".  UffdError when it does
    not work there."""
    answer = request(SetEngine(name))
    if answer.now == answer.name:
        return ""
    return (
        f"the process that lives keeps the engine {one_line(str(answer.now))}, since it "
        "holds kept effects; `uffd reset` ends it"
    )


def begin(request: Ask, name: str) -> None:
    """The same for a session that begins: looking needs no engine, so a lack is only told."""
    try:
        ask(request, name)
    except UffdError as error:
        say(f"warning: {error}; until then this session takes the best that works")
