"""`set uffd engine`, told to a server."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from gdb_uffd.client.session.asking import say
from gdb_uffd.client.session.wire import one_line
from gdb_uffd.protocol.model import UffdError


def ask(request: Callable[[str, Optional[Dict[str, Any]]], Any], name: str) -> str:
    """Ask a session's server for that engine; a line for the user, or "".  UffdError when it does
    not work there."""
    answer = request("engine", {"name": name})
    if answer.get("now") == answer.get("name"):
        return ""
    return (
        f"the process that lives keeps the engine {one_line(str(answer.get('now')))}, since it "
        "holds kept effects; `uffd reset` ends it"
    )


def begin(request: Callable[[str, Optional[Dict[str, Any]]], Any], name: str) -> None:
    """The same for a session that begins: looking needs no engine, so a lack is only told."""
    try:
        ask(request, name)
    except UffdError as error:
        say(f"warning: {error}; until then this session takes the best that works")
