"""The requests about memory: as it was, how it is mapped, and what gdb's side needs to name it."""

from __future__ import annotations

from typing import List, Optional

from gdb_uffd.protocol.messages import Done
from gdb_uffd.protocol.messages_calls import (
    Extent,
    Image,
    ListMappings,
    PageImage,
    Reach,
    SetView,
)
from gdb_uffd.protocol.model import Mapping, Path
from gdb_uffd.replay.attribute.reach import BlockSearch, Graph
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession
from gdb_uffd.trace.source import Snapshot
from gdb_uffd.trace.symbols import variable_size

SNAPSHOTS_HELD = 2


@request(SetView, looking=True)
def view(session: StubSession, asked: SetView) -> Done:
    """What memory reads see from now on."""
    session.view = None
    if asked.which != "now" and asked.snapshot is not None:
        session.view = _recorded(session, asked.snapshot)
    elif asked.which != "now":
        session.view = session.diversion.view(asked.which == "after", asked.all)
    return Done()


def _recorded(session: StubSession, number: int) -> Snapshot:
    """A snapshot's memory; the last two stay open, as two are compared."""
    held = session.looked_at
    if number not in held:
        while len(held) >= SNAPSHOTS_HELD:
            held.pop(next(iter(held))).close()
        held[number] = session.navigator.trace.snapshot(number)
    return held[number]


@request(Reach, looking=True)
def reach(session: StubSession, asked: Reach) -> List[Optional[Path]]:
    """How pointers lead to blocks."""
    if asked.fresh:
        session.graph = Graph()
    session.graph.extend(asked.types)
    memory = session.diversion.view(asked.after, asked.all)
    found = BlockSearch(session.graph, memory, asked.wanted, asked.after).run(asked.roots)
    return [found.get(start) for start, _ in asked.wanted]


@request(Extent, looking=True)
def extent(session: StubSession, asked: Extent) -> Optional[int]:
    """The size of a variable, where its symbol tells."""
    return variable_size(session.diversion.snapshot.modules, asked.address)


@request(Image, looking=True)
def image(session: StubSession, asked: Image) -> Optional[PageImage]:
    """A page before and after."""
    images = session.diversion.image(asked.address, asked.all)
    if images is None:
        return None
    before, after = images
    start = asked.address - asked.address % len(before) if before else asked.address
    return PageImage(start, before, after)


@request(ListMappings, looking=True)
def mappings(session: StubSession, _asked: ListMappings) -> List[Mapping]:
    """As they are now."""
    return list(session.diversion.mappings())
