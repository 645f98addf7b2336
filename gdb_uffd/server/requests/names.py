"""`quffd.view`, `reach`, `extent`: what gdb's side needs to name changes (docs/protocol.md)."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Tuple

from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.attribute.reach import BlockSearch, Graph
from gdb_uffd.server.requests.arguments import address, integer
from gdb_uffd.server.session import StubSession
from gdb_uffd.trace.source import Snapshot
from gdb_uffd.trace.symbols import variable_size

Arguments = Dict[str, Any]

SNAPSHOTS_HELD = 2
ROOTS_MAX = 8192
WANTED_MAX = 4096

LOOKING = frozenset((b"view", b"reach", b"hello", b"image", b"mappings", b"extent"))
"""Packets that leave the view as it is; all others end it."""

_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise UffdError(f"{name} is not true or false")
    return value


def _view(session: StubSession, arguments: Arguments) -> Any:
    which = arguments.get("which")
    if which not in ("now", "before", "after"):
        raise UffdError('which is not "now", "before" or "after"')
    session.view = None
    if which != "now" and "snapshot" in arguments:
        session.view = _recorded(session, integer(arguments, "snapshot"))
    elif which != "now":
        session.view = session.diversion.view(which == "after", _flag(arguments, "all"))
    return {}


def _recorded(session: StubSession, number: int) -> Snapshot:
    """A snapshot's memory; the last two stay open, as two are compared."""
    held = session.looked_at
    if number not in held:
        while len(held) >= SNAPSHOTS_HELD:
            held.pop(next(iter(held))).close()
        held[number] = session.journey.trace.snapshot(number)
    return held[number]


def _pairs(arguments: Arguments, name: str, most: int) -> List[Tuple[int, int]]:
    """A list of [address, number]."""
    given = arguments.get(name, [])
    if not isinstance(given, list) or len(given) > most:
        raise UffdError(f"{name} is not a list of at most {most}")
    out = []
    for pair in given:
        good = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
        if not good or not _HEX.fullmatch(pair[0]) or not isinstance(pair[1], int):
            raise UffdError(f'{name} holds something else than ["0x...", number]')
        out.append((int(pair[0], 16), pair[1]))
    return out


def _reach(session: StubSession, arguments: Arguments) -> Any:
    if _flag(arguments, "fresh"):
        session.graph = Graph()
    types = arguments.get("types", [])
    if not isinstance(types, list):
        raise UffdError("types is not a list")
    session.graph.extend(types)
    roots = _pairs(arguments, "roots", ROOTS_MAX)
    wanted = _pairs(arguments, "wanted", WANTED_MAX)
    after = _flag(arguments, "after")
    view = session.diversion.view(after, _flag(arguments, "all"))
    found = BlockSearch(session.graph, view, wanted, after).run(roots)
    return [to_json(found.get(start)) for start, _ in wanted]


def _extent(session: StubSession, arguments: Arguments) -> Any:
    return variable_size(session.diversion.snapshot.modules, address(arguments))


VERBS: Dict[str, Callable[[StubSession, Arguments], Any]] = {
    "view": _view,
    "reach": _reach,
    "extent": _extent,
}
