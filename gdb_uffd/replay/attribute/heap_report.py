"""What is told of a heap: all of it, one block, or only whether it is whole."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Dict, List, Optional, Set

from gdb_uffd.arch import LOOKED_AT
from gdb_uffd.protocol.heap import BlockReport, HeapReport, Reference
from gdb_uffd.protocol.model import Damage, HeapBlock, UffdError
from gdb_uffd.replay.attribute.allocators import recognise
from gdb_uffd.replay.attribute.heap_image import HeapImage
from gdb_uffd.replay.attribute.holders import Holders, NoBlocks
from gdb_uffd.replay.diversion import Diversion

SECONDS = 5.0
"""How long the holders of one block are looked for."""

REFERENCES_TOLD = 64

OURS = ("glibc", "")
"""Whose heaps are read: glibc's, and what may be it."""


def image_of(diversion: Diversion) -> HeapImage:
    """The heap as it is now.  UffdError of a 32-bit program, or where nothing can run."""
    if not isinstance(diversion, Diversion):
        raise UffdError("this target has no heap to look at")
    snapshot = diversion.snapshot
    if snapshot.arch in LOOKED_AT:
        raise UffdError(
            f"{snapshot.path}: of a 32-bit program ({snapshot.arch.spoken}): the heaps of 64-bit "
            "programs only are read"
        )
    detail = diversion.accounts.detail
    view = diversion.view(True, True)
    for thread in diversion.snapshot.threads:
        detail.owners.look(thread.tid, view.read, False)
    return HeapImage(detail.owners, view, diversion.vessel.save_brk())


def overview(diversion: Diversion, blocks: int = 0, free_only: bool = False) -> HeapReport:
    """Arenas, lists, counts, damage, and the first `blocks` blocks."""
    allocator = recognise(diversion.snapshot)
    if allocator.name not in OURS:
        return HeapReport(allocator, [], [])
    image = image_of(diversion)
    lists = image.lists
    if lists is None:
        return HeapReport(allocator, [], [], damage=image.damage, damage_count=image.damage_count)
    listed, more = image.blocks(free_only, blocks) if blocks else ([], 0)
    said = image.parameters
    cached = {cache.tid for cache in image.caches}
    return HeapReport(
        dataclasses.replace(allocator, name="glibc"),
        image.arenas(),
        lists.all(),
        int(image.mapped.count),
        sum(int(image.mapped.at[i].size) for i in range(image.mapped.count)),
        said.mapped if said is not None else -1,
        said.mapped_bytes if said is not None else -1,
        image.damage,
        image.damage_count,
        [t.tid for t in diversion.snapshot.threads if t.tid not in cached],
        listed,
        more,
    )


def block(diversion: Diversion, address: int) -> BlockReport:
    """The block around `address`, its neighbours, and who holds it."""
    allocator = recognise(diversion.snapshot)
    place = diversion.snapshot.classify(address)
    nothing = BlockReport(
        address, allocator=allocator, kind=place.kind, mapping=place.mapping,
        is_mapped=diversion.vessel.regions.is_mapped(address),
    )  # fmt: skip
    if allocator.name not in OURS:
        return dataclasses.replace(nothing, **_pointers(diversion, address))
    image = image_of(diversion)
    found = image.block_around(address)
    if found is None:
        return dataclasses.replace(nothing, damage=image.damage[:8])
    deadline = time.monotonic() + SECONDS
    holders = Holders(diversion.vessel, image, diversion.registers, deadline)
    before = image.block_at(found.start - 17) if found.state != "mapped" else None
    after = image.block_at(found.start + found.size - 8) if found.state != "mapped" else None
    if after is not None and after.start == found.start:
        after = None
    holders.look([b for b in (found, before, after) if b is not None])
    refs = holders.of(found)
    every = [*refs.roots, *refs.inner]
    stretch = image.area(found.start)
    return BlockReport(
        address,
        found,
        image.states[stretch.arena].address if stretch is not None else 0,
        before,
        after,
        holders.chain(found),
        _chain(holders, before),
        _chain(holders, after),
        every[:REFERENCES_TOLD],
        len(every[REFERENCES_TOLD:]) + refs.more,
        holders.freed_inside(found) if found.state in ("used", "mapped") else [],
        [d for d in image.damage if _about(d, found)],
        holders.complete,
        allocator,
        place.kind,
        place.mapping,
    )


def _pointers(diversion: Diversion, address: int) -> Dict[str, Any]:
    """Who points to an address, where no block around it is known; fields of a BlockReport."""
    owners = diversion.accounts.detail.owners
    bare = NoBlocks(diversion.view(True, True), owners)
    deadline = time.monotonic() + SECONDS
    holders = Holders(diversion.vessel, bare, diversion.registers, deadline)
    found = holders.of(HeapBlock(address, 1, "unknown")).roots
    return {
        "references": found[:REFERENCES_TOLD],
        "more_references": len(found[REFERENCES_TOLD:]),
        "complete": holders.complete,
    }


def _chain(holders: Holders, block: Optional[HeapBlock]) -> List[Reference]:
    """Of a neighbour, if somebody may hold it."""
    return holders.chain(block) if block is not None and block.state in ("used", "unknown") else []


def _about(damage: Damage, block: HeapBlock) -> bool:
    """Whether what is wrong is wrong about that block, or stands behind it."""
    return damage.block == block.start or (
        damage.before is not None and damage.before.start == block.start
    )


def flaws(diversion: Diversion) -> Set[str]:
    """What is wrong with the heap; nothing where it is whole, or none of glibc's."""
    if recognise(diversion.snapshot).name not in OURS:
        return set()
    return {damage.what for damage in image_of(diversion).damage}
